package strict

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
)

func TestProblemsStandInTheOrderOfTheFile(t *testing.T) {
	var p Problems
	p.Addf("nodes.yaml:10", "nodes[1]", "second")
	p.Addf("nodes.yaml:9", "nodes[0]", "first")
	p.Addf("nodes.yaml:10", "nodes[1]", "third")
	p.Addf("nodes.yaml", "", "of the whole file")
	want := "nodes.yaml: of the whole file\nnodes.yaml:9: nodes[0]: first\nnodes.yaml:10: nodes[1]: second\nnodes.yaml:10: nodes[1]: third"
	if got := p.Err().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNoProblemsAreNoError(t *testing.T) {
	var p Problems
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}

func TestAFloodOfProblemsIsCut(t *testing.T) {
	var p Problems
	for range maxProblems + 7 {
		p.Addf("", "", "wrong")
	}
	lines := strings.Split(p.Err().Error(), "\n")
	if len(lines) != maxProblems+1 || lines[maxProblems] != "and 7 more problems" {
		t.Errorf("%d lines, the last: %q", len(lines), lines[len(lines)-1])
	}
}

func TestProblemsKeepTheirCause(t *testing.T) {
	var p Problems
	p.Addf("a", "b", "read: %w", fs.ErrNotExist)
	if err := p.Err(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v hides its cause", err)
	}
}

func TestQuoteCutsAndEscapes(t *testing.T) {
	if got := Quote("a\x1b[31m"); got != `"a\x1b[31m"` {
		t.Error(got)
	}
	if got := Quote(strings.Repeat("a", 1000)); len(got) > 80 || !strings.HasSuffix(got, `a"...`) {
		t.Error(got)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"node", "clusterCIDRs", "tun.driver", "tun.mtu", "vxlan.vni", "tun"}
	for name, want := range map[string]string{
		"tun.drivr":                "tun.driver",
		"tun.drievr":               "tun.driver", // swapped letters are one mistake
		"driver":                   "tun.driver",
		"CLUSTER_CIDRS":            "clusterCIDRs",
		"cluster-cidr":             "clusterCIDRs",
		"Node":                     "node",
		"nod":                      "node",
		"mtu":                      "tun.mtu",
		"tunn":                     "tun",
		"":                         "",
		"x":                        "",
		"encapsulation":            "",
		"vxlan.vni.extra":          "",
		strings.Repeat("n", 1<<20): "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("nearest(%.20q) = %q; want %q", name, got, want)
		}
	}
}

func TestNodeNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"node1": true, "1": true, "node-1.rack-2.example": true, strings.Repeat("a", 253): true,
		"": false, "Node1": false, "node_1": false, "-a": false, "a-": false, "a..b": false, ".a": false, "a.": false,
		"../a": false, "a/b": false, "a\n": false, "nöde": false, strings.Repeat("a", 254): false,
	} {
		if err := CheckNodeName(name); (err == nil) != valid {
			t.Errorf("CheckNodeName(%q): %v", name, err)
		}
	}
}

func TestPrefixesAreNeitherLooseNorMapped(t *testing.T) {
	for text, want := range map[string]string{
		"10.244.0.0/16":          "",
		"fd00:244::/48":          "",
		"::/0":                   "",
		"10.244.0.1/16":          "10.244.0.1/16 has bits set behind its length; write 10.244.0.0/16",
		"::ffff:10.244.0.7/120":  "::ffff:10.244.0.7/120 is IPv4-mapped; write 10.244.0.0/24",
		"::ffff:10.244.0.0/90":   "::ffff:10.244.0.0/90 has bits set behind its length; write ::ffc0:0:0/90",
		"fd00::":                 "fd00:: has no prefix length; write it like fd00::/96",
		"fe80::%eth0/64":         `"fe80::%eth0/64" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48`,
		"10.244.0.0/016":         `"10.244.0.0/016" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48`,
		"10.244.0.0/255.255.0.0": `"10.244.0.0/255.255.0.0" is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48`,
	} {
		p, err := ParsePrefix(text)
		if got := message(err); got != want {
			t.Errorf("ParsePrefix(%q): %q; want %q", text, got, want)
		}
		if err == nil && p != netip.MustParsePrefix(text) {
			t.Errorf("ParsePrefix(%q) = %s", text, p)
		}
	}
	if message(CheckPrefix(netip.Prefix{})) == "" {
		t.Error("the zero prefix passes")
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWithin(t *testing.T) {
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	for text, want := range map[string]bool{
		"10.244.1.0/24": true, "10.244.0.0/16": true, "10.244.255.255/32": true, "fd00:244:0:1::/64": true,
		"10.0.0.0/8": false, "0.0.0.0/0": false, "10.245.0.0/24": false, "::/0": false, "::ffff:10.244.1.0/120": false,
	} {
		if got := Within(netip.MustParsePrefix(text), cidrs); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if Within(netip.Prefix{}, cidrs) {
		t.Error("no prefix is within")
	}
}
