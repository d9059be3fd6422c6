package machine

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// windowsProcesses is processes of Windows.
type windowsProcesses struct{}

func systemProcesses() processes { return windowsProcesses{} }

func (windowsProcesses) list(context.Context) ([]Proc, error) {
	snap, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = windows.CloseHandle(snap) }()
	e := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	var out []Proc
	for err := windows.Process32First(snap, &e); err == nil; err = windows.Process32Next(snap, &e) {
		out = append(out, Proc{PID: int(e.ProcessID), Parent: int(e.ParentProcessID), Name: windows.UTF16ToString(e.ExeFile[:])})
	}
	return out, nil
}

func (windowsProcesses) times(_ context.Context, pids []int) ([]Proc, error) {
	threads, err := threadsOf(pids)
	if err != nil {
		return nil, err
	}
	var out []Proc
	for _, pid := range pids {
		h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
		if err != nil {
			continue // ended, or another user's
		}
		var created, ended, kernel, user windows.Filetime
		err = windows.GetProcessTimes(h, &created, &ended, &kernel, &user)
		_ = windows.CloseHandle(h)
		if err != nil {
			continue
		}
		out = append(out, Proc{PID: pid, CPU: since1601(kernel) + since1601(user), Threads: threads[pid]})
	}
	return out, nil
}

// since1601 is a file time as a duration, which is what it is for processor
// times: units of 100 ns.
func since1601(t windows.Filetime) time.Duration {
	return time.Duration(uint64(t.HighDateTime)<<32|uint64(t.LowDateTime)) * 100
}

// kernel32 has the two functions that x/sys lacks.
func kernel32(name string) *windows.LazyProc {
	return windows.NewLazySystemDLL("kernel32.dll").NewProc(name)
}

// threadsOf reads the time of every thread of the processes.
func threadsOf(pids []int) (map[int]map[int]time.Duration, error) {
	getThreadTimes := kernel32("GetThreadTimes")
	if getThreadTimes.Find() != nil {
		return nil, nil
	}
	want := map[uint32]bool{}
	for _, p := range pids {
		want[uint32(p)] = true
	}
	snap, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return nil, fmt.Errorf("list threads: %w", err)
	}
	defer func() { _ = windows.CloseHandle(snap) }()
	out := map[int]map[int]time.Duration{}
	e := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err := windows.Thread32First(snap, &e); err == nil; err = windows.Thread32Next(snap, &e) {
		if !want[e.OwnerProcessID] {
			continue
		}
		h, err := windows.OpenThread(windows.THREAD_QUERY_LIMITED_INFORMATION, false, e.ThreadID)
		if err != nil {
			continue
		}
		var created, ended, kernel, user windows.Filetime
		ok, _, _ := getThreadTimes.Call(uintptr(h), uintptr(unsafe.Pointer(&created)), uintptr(unsafe.Pointer(&ended)),
			uintptr(unsafe.Pointer(&kernel)), uintptr(unsafe.Pointer(&user)))
		_ = windows.CloseHandle(h)
		if ok == 0 {
			continue
		}
		pid := int(e.OwnerProcessID)
		if out[pid] == nil {
			out[pid] = map[int]time.Duration{}
		}
		out[pid][int(e.ThreadID)] = since1601(kernel) + since1601(user)
	}
	return out, nil
}

func (windowsProcesses) busy(context.Context) (time.Duration, bool) {
	get := kernel32("GetSystemTimes")
	if get.Find() != nil {
		return 0, false
	}
	var idle, kernel, user windows.Filetime
	ok, _, _ := get.Call(uintptr(unsafe.Pointer(&idle)), uintptr(unsafe.Pointer(&kernel)), uintptr(unsafe.Pointer(&user)))
	if ok == 0 {
		return 0, false
	}
	return since1601(kernel) + since1601(user) - since1601(idle), true // kernel time includes idle time
}

// systemPower asks Windows for its power status.
func systemPower() (Power, error) {
	var st struct {
		ac, flag, percent, saver byte
		life, fullLife           uint32
	}
	get := kernel32("GetSystemPowerStatus")
	if err := get.Find(); err != nil {
		return Power{}, err
	}
	if ok, _, err := get.Call(uintptr(unsafe.Pointer(&st))); ok == 0 {
		return Power{}, fmt.Errorf("power status: %w", err)
	}
	return powerStatus(st.ac, st.flag, st.percent, st.saver), nil
}

// systemMemory asks Windows for its memory. The page file's share of the
// commit limit stands for swap.
func systemMemory() (Memory, error) {
	var st struct {
		length, load                                                             uint32
		total, avail, totalPage, availPage, totalVirtual, availVirtual, extended uint64
	}
	st.length = uint32(unsafe.Sizeof(st))
	get := kernel32("GlobalMemoryStatusEx")
	if err := get.Find(); err != nil {
		return Memory{}, err
	}
	if ok, _, err := get.Call(uintptr(unsafe.Pointer(&st))); ok == 0 {
		return Memory{}, fmt.Errorf("memory status: %w", err)
	}
	return memoryStatus(st.total, st.avail, st.totalPage), nil
}
