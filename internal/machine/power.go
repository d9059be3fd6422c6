package machine

import (
	"math"
	"strconv"
	"strings"
)

// Supply is one source of power as Linux describes it in uevent.
type Supply struct {
	Name    string
	Type    string // Mains, USB, Battery, UPS; "" in an excerpt
	Online  *bool
	Status  string // of a battery: charging, discharging, not charging, full
	Percent *float64
	DrawW   *float64 // what a discharging battery gives
	// Device marks the battery of a mouse or the like, which does not feed
	// the machine.
	Device bool
	energy float64 // as weight among several batteries; 0 if not known
}

// ParseSupply reads the uevent file of a power supply.
func ParseSupply(data []byte) Supply {
	v := map[string]string{}
	for k, x := range parseUevent(data) {
		v[strings.TrimPrefix(k, "POWER_SUPPLY_")] = x
	}
	num := func(keys ...string) (float64, bool) {
		for _, k := range keys {
			if x, err := strconv.ParseFloat(v[k], 64); err == nil && !math.IsNaN(x) && math.Abs(x) < 1e15 {
				return x, true
			}
		}
		return 0, false
	}
	s := Supply{Name: v["NAME"], Type: v["TYPE"], Device: v["SCOPE"] == "Device"}
	switch st := strings.ToLower(v["STATUS"]); st {
	case "charging", "discharging", "not charging", "full":
		s.Status = st
	}
	if s.Type == "" && s.Status != "" {
		s.Type = "Battery"
	}
	if on, ok := num("ONLINE"); ok {
		s.Online = new(on > 0)
	}
	for _, kind := range []string{"ENERGY", "CHARGE"} {
		now, ok1 := num(kind + "_NOW")
		full, ok2 := num(kind+"_FULL", kind+"_FULL_DESIGN")
		if ok1 && ok2 && full > 0 && now >= 0 {
			s.Percent = new(min(100, 100*now/full))
			if kind == "ENERGY" {
				s.energy = full
			}
			break
		}
	}
	if x, ok := num("CAPACITY"); ok && x >= 0 && x <= 100 {
		s.Percent = &x
	}
	if s.Status == "discharging" {
		if uw, ok := num("POWER_NOW"); ok && uw != 0 {
			s.DrawW = new(math.Abs(uw) / 1e6)
		} else if ua, ok := num("CURRENT_NOW"); ok && ua != 0 {
			if uv, ok := num("VOLTAGE_NOW"); ok && uv > 0 {
				s.DrawW = new(math.Abs(ua) * uv / 1e12)
			}
		}
	}
	return s
}

// powerOf makes one statement of all supplies. Without any it is unknown: a
// desktop has none to show, and neither has a virtual machine.
func powerOf(supplies []Supply) Power {
	p := Power{Source: UnknownPower}
	var on, off bool
	var batteries []Supply
	for _, s := range supplies {
		switch {
		case s.Device:
		case s.Type == "Battery":
			batteries = append(batteries, s)
		case s.Online != nil && *s.Online:
			on = true
		case s.Online != nil && s.Type != "USB": // an empty USB socket says nothing
			off = true
		}
	}
	var sum, weight, draw float64
	for _, b := range batteries {
		if b.Percent != nil {
			w := b.energy
			if w == 0 {
				w = 1
			}
			sum += *b.Percent * w
			weight += w
		}
		if b.DrawW != nil {
			draw += *b.DrawW
		}
		// One that discharges says more than one that is full.
		if p.BatteryStatus == "" || b.Status == "discharging" {
			p.BatteryStatus = b.Status
		}
	}
	if weight > 0 {
		p.BatteryPercent = new(sum / weight)
	}
	if draw > 0 {
		p.BatteryDrawW = &draw
	}
	switch {
	case on:
		p.Source = AC
	case p.BatteryStatus == "discharging":
		p.Source = Battery
	case p.BatteryStatus == "charging":
		p.Source = AC
	case off && len(batteries) > 0:
		p.Source = Battery
	}
	return p
}

// linuxPower reads the supplies and the firmware's profile.
func linuxPower(root tree) (Power, error) {
	var supplies []Supply
	class := root.within("sys", "class", "power_supply")
	for _, n := range class.names() {
		b, err := class.bytes(n, "uevent")
		if err != nil {
			continue
		}
		s := ParseSupply(b)
		if t := class.text(n, "type"); t != "" { // newer kernels repeat it in uevent
			s.Type = t
		}
		supplies = append(supplies, s)
	}
	p := powerOf(supplies)
	if prof := root.text("sys", "firmware", "acpi", "platform_profile"); prof != "" {
		p.Profile, p.ProfileSource = prof, "platform_profile"
		p.Saver = saver(prof)
	}
	if len(supplies) == 0 && p.Profile == "" {
		return p, noData("no power supply and no power profile in /sys")
	}
	return p, nil
}

// saver says whether a profile of Linux saves power; nil for one in between
// that we cannot place.
func saver(profile string) *bool {
	switch profile {
	case "low-power", "power-saver", "quiet", "cool":
		return new(true)
	case "performance", "balanced", "balanced-performance":
		return new(false)
	}
	return nil
}

// parseProfile reads the answer of `powerprofilesctl get`.
func parseProfile(data []byte) (string, bool) {
	s := strings.TrimSpace(string(data))
	if s == "" || strings.ContainsAny(s, "\n ") {
		return "", false
	}
	return s, true
}
