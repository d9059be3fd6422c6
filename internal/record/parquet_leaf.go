package record

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

// leaf turns the values of one Parquet column into JSON and back without loss.
type leaf struct {
	append func(dst []byte, v parquet.Value) []byte
	// parse is given valid JSON other than null, unless null is set.
	parse func(raw jsontext.Value) (parquet.Value, error)
	text  bool // plain strings
	null  bool // null is a value like others (a column of JSON texts)
}

// leafOf chooses by the logical type and, where that says nothing or something
// unusual, by the physical one:
//
//	integers, floats        numbers; NaN and the infinities, which JSON lacks, as text
//	decimals                numbers with all their decimals
//	strings, enums          text
//	JSON                    the value itself
//	UUID                    its usual text
//	dates                   "2006-01-02"
//	times of day            "15:04:05.999999999"
//	timestamps, INT96       "2006-01-02T15:04:05.999999999", with a Z where they are instants
//	other bytes             text where they are UTF-8, else a base64 data: URL
//
// Definitions: https://github.com/apache/parquet-format/blob/master/LogicalTypes.md
func leafOf(typ parquet.Type) leaf {
	kind := typ.Kind()
	if lt := typ.LogicalType(); lt != nil {
		switch t := lt.Value.(type) {
		case *format.StringType, *format.EnumType:
			l := bytesLeaf(typ)
			l.text = true
			return l
		case *format.JsonType:
			return jsonLeaf(typ)
		case *format.UUIDType:
			return uuidLeaf()
		case *format.DecimalType:
			return decimalLeaf(typ, int(t.Scale))
		case *format.DateType:
			return dateLeaf()
		case *format.TimeType:
			if t.Unit.Value != nil {
				return timeLeaf(kind, t.Unit.Value.Duration())
			}
		case *format.TimestampType:
			if t.Unit.Value != nil {
				return timestampLeaf(t.Unit.Value.Duration(), t.IsAdjustedToUTC)
			}
		case *format.IntType:
			return intLeaf(kind, int(t.BitWidth), t.IsSigned)
		}
	}
	switch kind {
	case parquet.Boolean:
		return boolLeaf()
	case parquet.Int32:
		return intLeaf(kind, 32, true)
	case parquet.Int64:
		return intLeaf(kind, 64, true)
	case parquet.Int96:
		return int96Leaf()
	case parquet.Float:
		return floatLeaf(32)
	case parquet.Double:
		return floatLeaf(64)
	}
	return bytesLeaf(typ)
}

func wrongType(want string) error { return fmt.Errorf("is not the %s that the column holds", want) }

func unquote(raw jsontext.Value) (string, error) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", wrongType("text")
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	return string(b), err
}

func boolLeaf() leaf {
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte { return strconv.AppendBool(dst, v.Boolean()) },
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			if k := raw.Kind(); k != 't' && k != 'f' {
				return parquet.Value{}, wrongType("true or false")
			}
			return parquet.BooleanValue(raw.Kind() == 't'), nil
		},
	}
}

func intLeaf(kind parquet.Kind, bits int, signed bool) leaf {
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			switch {
			case kind == parquet.Int32 && signed:
				return strconv.AppendInt(dst, int64(v.Int32()), 10)
			case kind == parquet.Int32:
				return strconv.AppendUint(dst, uint64(v.Uint32()), 10)
			case signed:
				return strconv.AppendInt(dst, v.Int64(), 10)
			}
			return strconv.AppendUint(dst, v.Uint64(), 10)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			text := string(raw)
			var n int64
			var err error
			if signed {
				n, err = strconv.ParseInt(text, 10, bits)
			} else {
				var u uint64
				u, err = strconv.ParseUint(text, 10, bits)
				n = int64(u)
			}
			if err != nil {
				if n, err = wholeNumber(text, bits); err != nil {
					return parquet.Value{}, err
				}
			}
			if kind == parquet.Int32 {
				return parquet.Int32Value(int32(n)), nil
			}
			return parquet.Int64Value(n), nil
		},
	}
}

// wholeNumber reads integers written as 5.0 or 1e3, which JSON Schema allows.
func wholeNumber(text string, bits int) (int64, error) {
	f, err := strconv.ParseFloat(text, 64)
	limit := math.Ldexp(1, min(bits-1, 53))
	if err != nil || f != math.Trunc(f) || f < -limit || f >= limit {
		return 0, wrongType(fmt.Sprintf("integer of %d bits", bits))
	}
	return int64(f), nil
}

func floatLeaf(bits int) leaf {
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			f := v.Double()
			if bits == 32 {
				f = float64(v.Float())
			}
			return appendFloat(dst, f, bits)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			text := string(raw)
			switch text {
			case `"NaN"`, `"Infinity"`, `"-Infinity"`:
				text = text[1 : len(text)-1]
			default:
				if raw.Kind() != '0' {
					return parquet.Value{}, wrongType("number")
				}
			}
			f, err := strconv.ParseFloat(text, bits)
			if err != nil {
				return parquet.Value{}, wrongType("number")
			}
			if bits == 32 {
				return parquet.FloatValue(float32(f)), nil
			}
			return parquet.DoubleValue(f), nil
		},
	}
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	how := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) { // as ECMAScript does
		how = 'e'
	}
	return strconv.AppendFloat(dst, f, how, -1, bits)
}

const dataURL = "data:;base64,"

func bytesLeaf(typ parquet.Type) leaf {
	fixed := typ.Kind() == parquet.FixedLenByteArray
	size := typ.Length()
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			b := v.ByteArray()
			if utf8.Valid(b) && !bytes.HasPrefix(b, []byte(dataURL)) {
				return appendString(dst, string(b))
			}
			dst = append(dst, `"`+dataURL...)
			dst = base64.StdEncoding.AppendEncode(dst, b)
			return append(dst, '"')
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			s, err := unquote(raw)
			if err != nil {
				return parquet.Value{}, err
			}
			b := []byte(s)
			if packed, ok := strings.CutPrefix(s, dataURL); ok {
				if d, err := base64.StdEncoding.DecodeString(packed); err == nil {
					b = d
				}
			}
			if !fixed {
				return parquet.ByteArrayValue(b), nil
			}
			if len(b) != size {
				return parquet.Value{}, wrongType(fmt.Sprintf("text of %d bytes", size))
			}
			return parquet.FixedLenByteArrayValue(b), nil
		},
	}
}

// jsonLeaf holds JSON values as they are. Text that is not JSON, which no writer
// should have put there, becomes a JSON string.
func jsonLeaf(typ parquet.Type) leaf {
	text := bytesLeaf(typ)
	return leaf{
		null: true,
		append: func(dst []byte, v parquet.Value) []byte {
			if b := v.ByteArray(); jsontext.Value(b).IsValid() {
				return append(dst, b...)
			}
			return text.append(dst, v)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			if len(raw) == 0 {
				raw = jsontext.Value("null")
			}
			return parquet.ByteArrayValue(bytes.Clone(raw)), nil
		},
	}
}

func uuidLeaf() leaf {
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			var u uuid.UUID
			copy(u[:], v.ByteArray())
			return append(append(append(dst, '"'), u.String()...), '"')
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			s, err := unquote(raw)
			if err != nil {
				return parquet.Value{}, err
			}
			u, err := uuid.Parse(s)
			if err != nil {
				return parquet.Value{}, wrongType("UUID")
			}
			return parquet.FixedLenByteArrayValue(u[:]), nil
		},
	}
}

// decimalLeaf holds integers, the value times 10 to the scale; those in bytes
// are two's complement, the highest byte first.
func decimalLeaf(typ parquet.Type, scale int) leaf {
	kind, size := typ.Kind(), typ.Length()
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			var n big.Int
			switch kind {
			case parquet.Int32:
				n.SetInt64(int64(v.Int32()))
			case parquet.Int64:
				n.SetInt64(v.Int64())
			default:
				b := v.ByteArray()
				n.SetBytes(b)
				if len(b) > 0 && b[0]&0x80 != 0 {
					n.Sub(&n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
				}
			}
			if n.Sign() < 0 {
				dst = append(dst, '-')
				n.Neg(&n)
			}
			digits := n.String()
			if scale <= 0 {
				dst = append(dst, digits...)
				if digits != "0" {
					dst = append(dst, strings.Repeat("0", -scale)...)
				}
				return dst
			}
			if len(digits) <= scale {
				digits = strings.Repeat("0", scale+1-len(digits)) + digits
			}
			dst = append(dst, digits[:len(digits)-scale]...)
			dst = append(dst, '.')
			return append(dst, digits[len(digits)-scale:]...)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			want := wrongType("decimal")
			r, ok := new(big.Rat).SetString(string(raw))
			if !ok || raw.Kind() != '0' || len(raw) > 1000 {
				return parquet.Value{}, want
			}
			power := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(scale, -scale))), nil))
			if scale < 0 {
				power.Inv(power)
			}
			if r.Mul(r, power); !r.IsInt() {
				return parquet.Value{}, want
			}
			n := r.Num()
			switch kind {
			case parquet.Int32:
				if !n.IsInt64() || n.Int64() != int64(int32(n.Int64())) {
					return parquet.Value{}, want
				}
				return parquet.Int32Value(int32(n.Int64())), nil
			case parquet.Int64:
				if !n.IsInt64() {
					return parquet.Value{}, want
				}
				return parquet.Int64Value(n.Int64()), nil
			case parquet.ByteArray:
				return parquet.ByteArrayValue(twosComplement(n, n.BitLen()/8+1)), nil
			}
			if n.BitLen()/8+1 > size {
				return parquet.Value{}, want
			}
			return parquet.FixedLenByteArrayValue(twosComplement(n, size)), nil
		},
	}
}

func twosComplement(n *big.Int, size int) []byte {
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	return n.FillBytes(make([]byte, size))
}

const (
	dateLayout = "2006-01-02"
	timeLayout = "15:04:05.999999999"
	dayNanos   = int64(24 * time.Hour)
)

// appendTime writes t by the layout, or the bare number where t is beyond the
// years that the layout can write and read.
func appendTime(dst []byte, t time.Time, layout string, bare int64) []byte {
	if y := t.Year(); y < 0 || y > 9999 {
		return strconv.AppendInt(dst, bare, 10)
	}
	return append(t.AppendFormat(append(dst, '"'), layout), '"')
}

// parseTime reads what appendTime wrote.
func parseTime(raw jsontext.Value, layout, want string) (t time.Time, bare int64, isBare bool, err error) {
	if len(raw) > 0 && raw[0] != '"' {
		bare, err = strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			err = wrongType(want)
		}
		return t, bare, true, err
	}
	s, err := unquote(raw)
	if err == nil {
		t, err = time.Parse(layout, s)
	}
	if err != nil {
		err = wrongType(want)
	}
	return t, 0, false, err
}

func dateLeaf() leaf {
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			days := int64(v.Int32())
			return appendTime(dst, time.Unix(days*86400, 0).UTC(), dateLayout, days)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			t, days, bare, err := parseTime(raw, dateLayout, "date")
			if err != nil {
				return parquet.Value{}, err
			}
			if !bare {
				days = t.Unix() / 86400
			}
			return parquet.Int32Value(int32(days)), nil
		},
	}
}

func timeLeaf(kind parquet.Kind, unit time.Duration) leaf {
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			n := v.Int64()
			if kind == parquet.Int32 {
				n = int64(v.Int32())
			}
			if n < 0 || n >= dayNanos/int64(unit) {
				return strconv.AppendInt(dst, n, 10)
			}
			return appendTime(dst, time.Unix(0, n*int64(unit)).UTC(), timeLayout, n)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			t, n, bare, err := parseTime(raw, timeLayout, "time of day")
			if err != nil {
				return parquet.Value{}, err
			}
			if !bare {
				midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
				n = int64(t.Sub(midnight) / unit)
			}
			if kind == parquet.Int32 {
				return parquet.Int32Value(int32(n)), nil
			}
			return parquet.Int64Value(n), nil
		},
	}
}

func timestampLeaf(unit time.Duration, instant bool) leaf {
	layout := dateLayout + "T" + timeLayout
	if instant {
		layout += "Z07:00"
	}
	perSecond := int64(time.Second / unit)
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			n := v.Int64()
			seconds, rest := n/perSecond, n%perSecond
			return appendTime(dst, time.Unix(seconds, rest*int64(unit)).UTC(), layout, n)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			t, n, bare, err := parseTime(raw, layout, "timestamp")
			if err != nil {
				return parquet.Value{}, err
			}
			if !bare {
				n = t.Unix()*perSecond + int64(t.Nanosecond())/int64(unit)
			}
			return parquet.Int64Value(n), nil
		},
	}
}

// int96Leaf is the old timestamp of Hive, Impala and Spark: nanoseconds of the
// day in the low 64 bits, the Julian day above.
func int96Leaf() leaf {
	const epoch = 2440588 // Julian day of 1970-01-01
	layout := dateLayout + "T" + timeLayout + "Z"
	return leaf{
		append: func(dst []byte, v parquet.Value) []byte {
			i := v.Int96()
			nanos := int64(i[0]) | int64(i[1])<<32
			t := time.Unix((int64(i[2])-epoch)*86400, nanos).UTC()
			if nanos < 0 || nanos >= dayNanos || t.Year() < 0 || t.Year() > 9999 {
				return fmt.Appendf(dst, `"int96:%08x%08x%08x"`, i[2], i[1], i[0])
			}
			return appendTime(dst, t, layout, 0)
		},
		parse: func(raw jsontext.Value) (parquet.Value, error) {
			s, err := unquote(raw)
			if err != nil {
				return parquet.Value{}, err
			}
			if digits, ok := strings.CutPrefix(s, "int96:"); ok && len(digits) == 24 {
				var i deprecated.Int96
				var errs error
				for k := range i {
					n, err := strconv.ParseUint(digits[16-8*k:24-8*k], 16, 32)
					i[k], errs = uint32(n), errors.Join(errs, err)
				}
				if errs == nil {
					return parquet.Int96Value(i), nil
				}
			}
			t, err := time.Parse(layout, s)
			if err != nil {
				return parquet.Value{}, wrongType("timestamp")
			}
			days := t.Unix() / 86400
			if t.Unix()%86400 < 0 {
				days--
			}
			nanos := uint64((t.Unix()-days*86400)*int64(time.Second)) + uint64(t.Nanosecond())
			return parquet.Int96Value(deprecated.Int96{uint32(nanos), uint32(nanos >> 32), uint32(days + epoch)}), nil
		},
	}
}
