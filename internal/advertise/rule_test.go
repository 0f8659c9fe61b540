package advertise

import (
	"strings"
	"testing"
)

func TestRulesAreReadAndWrittenAlike(t *testing.T) {
	for _, text := range []string{
		"auto", "192.168.77.1", "fd00:77::1", "interface=eth0", "interface=eth0.100", "interface=auto",
		"can-reach=192.168.77.254", "can-reach=2001:db8::1",
	} {
		r, err := Parse(text)
		if err != nil || r.String() != text {
			t.Errorf("%s: %s, %v", text, r, err)
		}
	}
	if r, _ := Parse("auto"); r != (Rule{}) {
		t.Error("the zero Rule is not auto")
	}
}

func TestAMistakeIsRefusedWithItsRemedy(t *testing.T) {
	for text, remedy := range map[string]string{
		"":                              "write auto",
		"Auto":                          "write auto",
		"eth0":                          "interface=NAME",
		"iface=eth0":                    "interface=NAME",
		"Interface=eth0":                "did you mean interface=?",
		"can_reach=192.168.77.1":        "did you mean can-reach=?",
		"interface=":                    "like interface=eth0",
		"interface=eth0:1":              "write interface=eth0, or the address",
		"interface=a/b":                 "`ip link` lists",
		"interface=0123456789abcdef":    "`ip link` lists",
		"interface=eth 0":               "`ip link` lists",
		"node1.example.org":             "not looked up",
		"can-reach=api.example.org":     "not looked up",
		"can-reach=":                    "write an address like",
		"192.168.77.1/24":               "write 192.168.77.1",
		"192.168.77.1:9338":             "write 192.168.77.1,",
		"[fd00:77::1]:9338":             "write fd00:77::1,",
		"::ffff:192.168.77.1":           "write 192.168.77.1",
		"fe80::1%eth0":                  "needs none",
		"fe80::1":                       "link-local",
		"127.0.0.1":                     "loopback",
		"0.0.0.0":                       "unspecified",
		"can-reach=224.0.0.1":           "multicast",
		"255.255.255.255":               "broadcast",
		strings.Repeat("x", 1000) + ".": "not an IP address",
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%.40q: %v lacks %q", text, err, remedy)
		}
	}
}

// A text is either refused, or is the one way to write its rule, up to the spelling of
// addresses.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"auto", "192.168.77.1", "fd00:77::1", "interface=eth0", "can-reach=2001:db8::1", "interface=a=b", "::ffff:1.2.3.4", "fe80::1%x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			if r != (Rule{}) || len(err.Error()) > 1000 {
				t.Errorf("%q is refused as %v with %v", text, r, err)
			}
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q became %s, which is read as %s, %v", text, r, again, err)
		}
		if r.kind == ofInterface && r.String() != text {
			t.Errorf("%q became %s", text, r)
		}
		if r.addr.IsValid() && unreachable(r.addr) != "" {
			t.Errorf("%q holds %s, which is %s", text, r.addr, unreachable(r.addr))
		}
	})
}
