package peer

import (
	"encoding"
	"strings"
	"testing"
)

// textOf is what is written in lists, files and JSON.
type textOf interface {
	encoding.TextMarshaler
	encoding.TextUnmarshaler
}

func TestTextsAreReadAsTheyAreWritten(t *testing.T) {
	digits := strings.Repeat("0a", 32)
	for text, value := range map[string]textOf{"02:00:00:00:00:99": new(MAC), digits: new(Fingerprint)} {
		if err := value.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if written, err := value.MarshalText(); err != nil || string(written) != text {
			t.Errorf("%s is written as %s, %v", text, written, err)
		}
	}
	for _, wrong := range []struct {
		text  string
		value textOf
		fault string
	}{
		{"", new(MAC), "not an Ethernet address"},
		{"00:00:00:00:00:00", new(MAC), "not an Ethernet address"},
		{"02:00:00:00:00:00:00:01", new(MAC), "not an Ethernet address"}, // EUI-64
		{"02:00:00:00:00:0g", new(MAC), "not an Ethernet address"},
		{"", new(Fingerprint), "64 hexadecimal digits"},
		{digits + "0a", new(Fingerprint), "64 hexadecimal digits"},
		{strings.Repeat("0g", 32), new(Fingerprint), "not hexadecimal digits"},
		{strings.Repeat("00", 32), new(Fingerprint), "all zeros"},
	} {
		before, _ := wrong.value.MarshalText()
		err := wrong.value.UnmarshalText([]byte(wrong.text))
		if err == nil || !strings.Contains(err.Error(), wrong.fault) {
			t.Errorf("%q: %v, want %q", wrong.text, err, wrong.fault)
		}
		if after, _ := wrong.value.MarshalText(); string(after) != string(before) {
			t.Errorf("%q changes the value to %s", wrong.text, after)
		}
	}
}

// A derived address is locally administered, no multicast, and the name's alone (IEEE 802, 8.4).
func TestDerivedMACsAreNamesOwn(t *testing.T) {
	one, other := DeriveMAC("node1"), DeriveMAC("node2")
	if one != DeriveMAC("node1") || one == other || one[0] != 2 || other[0] != 2 {
		t.Errorf("node1 has %s, node2 %s", one, other)
	}
}
