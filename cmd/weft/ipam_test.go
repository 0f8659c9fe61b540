package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/cniplugin/leases"
	"weft/ipam"
)

const longID = "8f3b2c1d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"

// listed is one attachment of each kind.
func listed() listing {
	found := func(id, pod string, addresses ...string) leases.Found {
		f := leases.Found{Network: "weft", HasVeth: true, Complete: true}
		f.Attachment = ipam.Attachment{ContainerID: id, IfName: "eth0"}
		f.Pod, f.Veth, f.Since = pod, "weft0123456789a", now.Add(-26*time.Hour)
		for _, a := range addresses {
			f.Addresses = append(f.Addresses, netip.MustParseAddr(a))
		}
		return f
	}
	running := found(longID, "default/web", "10.244.1.2", "fd00:244:1::2")
	running.Processes = []int{4711, 4712, 4720}
	gone := found("short", "default/\x1b[31mred\nand\ttab", "10.244.1.3")
	gone.HasVeth, gone.Complete = false, false
	nameless := leases.Found{HasVeth: true}
	nameless.Veth, nameless.Addresses = "weftfedcba98765", []netip.Addr{}
	l := listing{CoolingDown: []cooling{{"weft", []netip.Addr{netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("fd00:244:1::9")}}}}
	for _, f := range []leases.Found{running, gone, nameless} {
		l.Leases = append(l.Leases, attachment{f, f.Trouble()})
	}
	return l
}

func TestListingShowsPodsProcesses(t *testing.T) {
	var got strings.Builder
	if err := printListing(&got, listed(), now); err != nil {
		t.Fatal(err)
	}
	want := `
ADDRESSES                  POD                           CONTAINER           VETH             NETWORK  AGE      PROCESSES         TROUBLE
10.244.1.2, fd00:244:1::2  default/web                   8f3b2c1d4e5f6/eth0  weft0123456789a  weft     26h0m0s  4711, 4712, 4720  -
10.244.1.3                 default/?[31mred and tab      short/eth0          weft0123456789a  weft     26h0m0s  -                 its veth is gone
-                          -                             -                   weftfedcba98765  -        -        -                 its ADD did not finish, and it has no lease

cooling down in weft, or about to be free: 10.244.1.9, fd00:244:1::9
`
	text := strings.ReplaceAll(got.String(), "\ufffd", "?")
	if diff := cmp.Diff(squeezed(want), squeezed(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := printListing(fullDisk(t), listed(), now); err == nil {
		t.Error("a full disk was not noticed")
	}
}

// squeezed leaves out how wide columns are.
func squeezed(text string) []string {
	var lines []string
	for line := range strings.Lines(strings.TrimPrefix(text, "\n")) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// The beginning of the container's ID is enough.
func TestLeaseIsNamedByAddressOrContainer(t *testing.T) {
	l := listed()
	for _, more := range []struct{ id, ifName, addr string }{
		{"pod", "eth0", "10.244.1.20"}, {"pod", "net1", "10.244.1.21"}, {"pod2", "eth0", "10.244.1.22"}, {"unleased", "eth0", "10.244.1.23"},
	} {
		f := leases.Found{Network: "weft", HasVeth: true, Complete: true}
		f.Attachment = ipam.Attachment{ContainerID: more.id, IfName: more.ifName}
		f.Addresses = []netip.Addr{netip.MustParseAddr(more.addr)}
		if more.id == "pod2" {
			f.Pod = "shop/web-0"
		}
		if more.id == "unleased" {
			f.Network = ""
		}
		l.Leases = append(l.Leases, attachment{Found: f})
	}
	l.Leases[2].Addresses = []netip.Addr{netip.MustParseAddr("10.244.1.30")} // of the veth without a name
	for name, want := range map[string]string{
		"10.244.1.2":         longID + "/eth0",
		"fd00:244:1:0::2":    longID + "/eth0",
		longID:               longID + "/eth0",
		"8f3b2c1d4e5f6/eth0": longID + "/eth0",
		"8f3":                longID + "/eth0",
		"pod/net1":           "pod/net1",
		"pod2":               "pod2/eth0",
		"shop/web-0":         "pod2/eth0",
		"pod/eth0":           "pod/eth0", // though pod2/eth0 begins like it

		"pod":         `"pod" matches pod/eth0 (10.244.1.20) or pod/net1 (10.244.1.21); name one by its address`,
		"po":          `"po" matches pod/eth0 (10.244.1.20) or pod/net1 (10.244.1.21) or pod2/eth0 (10.244.1.22); name one by its address`,
		"10.244.1.77": "no pod has \"10.244.1.77\"; `weft ipam list` lists the pods and their addresses",
		"/eth0":       "no pod has \"/eth0\"; `weft ipam list` lists the pods and their addresses",
		"a\x1bb":      "no pod has \"a\\x1bb\"; `weft ipam list` lists the pods and their addresses",
		"unleased":    "the pod that has \"unleased\" has no lease; `weft ipam gc` makes one",
		"10.244.1.30": `"10.244.1.30" has no lease, only a veth that an unfinished ADD left; if it stays, remove it (ip link delete weftfedcba98765)`,
	} {
		f, err := l.lookUp(name)
		got := f.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

// leased makes a state directory in which containers a, ab and b hold a lease, and one
// rests. The veth of b is gone; the others are of another plugin's making.
func leased(t *testing.T) (dir string, store *ipam.Store) {
	t.Helper()
	dir = t.TempDir()
	store, err := ipam.Open(dir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	pool := ipam.Pool{Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Cooldown: time.Hour}
	for _, id := range []string{"a", "ab", "b", "rested"} {
		lease := ipam.Lease{Attachment: ipam.Attachment{ContainerID: id, IfName: "eth0"}, Pod: "default/" + id}
		if id == "b" {
			lease.Veth = "weftffffffffff"
		}
		if _, err := store.Acquire(t.Context(), lease, pool); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := store.Release(t.Context(), ipam.Attachment{ContainerID: "rested", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	return dir, store
}

// ipamCommand runs weft ipam on a state directory.
func ipamCommand(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return asWeft(t, append([]string{"ipam", "--state-dir", dir}, args...)...)
}

func expectIPAM(t *testing.T, dir string, args []string, code int, stdout, stderr string) {
	t.Helper()
	gotCode, gotOut, gotErr := ipamCommand(t, dir, args...)
	if gotCode != code || gotOut != stdout || gotErr != stderr {
		t.Errorf("weft ipam %v: exit status %d, stdout:\n%sstderr:\n%swant %d,\n%s%s", args, gotCode, gotOut, gotErr, code, stdout, stderr)
	}
}

func TestLeasesWithoutWeftdFromListToRelease(t *testing.T) {
	dir, store := leased(t)
	code, stdout, stderr := ipamCommand(t, dir, "list")
	lines := squeezed(stdout)
	if code != 0 || stderr != "" || len(lines) != 6 || !strings.HasPrefix(lines[3], "10.244.1.3 default/b b/eth0 weftffffffffff weft ") ||
		!strings.HasSuffix(lines[3], "s - its veth is gone") || lines[5] != "cooling down in weft, or about to be free: 10.244.1.4" {
		t.Fatalf("list: exit status %d, %s\n%s", code, stderr, stdout)
	}
	const trouble = "b/eth0 (pod default/b) 10.244.1.3: its veth is gone\n"
	expectIPAM(t, dir, []string{"check"}, 1, "found "+trouble, "weft: 1 of 3 attachments inconsistent; `weft ipam gc` repairs what it can\n")
	expectIPAM(t, dir, []string{"gc"}, 0, "freed "+trouble, "")
	expectIPAM(t, dir, []string{"gc"}, 0, "", "")
	expectIPAM(t, dir, []string{"gc", "-o", "json"}, 0, "[]\n", "")
	expectIPAM(t, dir, []string{"check"}, 0, "", "")
	expectIPAM(t, dir, []string{"check", "-o", "json"}, 0, "[]\n", "")

	expectIPAM(t, dir, []string{"release", "a", "nobody"}, 1, "", "weft: no pod has \"nobody\"; `weft ipam list` lists the pods and their addresses\n")
	if leases, _, err := store.List(); err != nil || len(leases) != 2 {
		t.Errorf("something was released though one name was wrong: %v, %v", leases, err)
	}
	expectIPAM(t, dir, []string{"release", "a", "10.244.1.1"}, 0, "freed a/eth0 (pod default/a) 10.244.1.1: by hand\n", "") // one lease, named twice
	code, stdout, stderr = ipamCommand(t, dir, "release", "ab/eth0", "-o", "json")
	var changes []leases.Change
	if err := json.Unmarshal([]byte(stdout), &changes); err != nil || code != 0 || stderr != "" || len(changes) != 1 || changes[0].Action != leases.Freed || changes[0].ContainerID != "ab" {
		t.Errorf("release -o json: %v, exit status %d, %s%s", err, code, stderr, stdout)
	}
	if leases, _, err := store.List(); err != nil || len(leases) != 0 {
		t.Errorf("left: %v, %v", leases, err)
	}
}

func TestTheListForProgramsHasNoNulls(t *testing.T) {
	dir := t.TempDir()
	expectIPAM(t, dir, []string{"list", "-o", "json"}, 0, "{\n  \"leases\": [],\n  \"coolingDown\": []\n}\n", "")
	expectIPAM(t, dir, []string{"list"}, 0, "ADDRESSES  POD  CONTAINER  VETH  NETWORK  AGE  PROCESSES  TROUBLE\n", "")
	dir, _ = leased(t)
	_, stdout, _ := ipamCommand(t, dir, "list", "-o", "json")
	var got struct {
		Leases []struct {
			ContainerID, IfName, Pod, Network, Trouble string
			Addresses                                  []string
			HasVeth                                    *bool
			Since                                      time.Time
		}
		CoolingDown []struct {
			Network   string
			Addresses []string
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || strings.Contains(stdout, "null") {
		t.Fatalf("%v\n%s", err, stdout)
	}
	b := got.Leases[2]
	if len(got.Leases) != 3 || b.ContainerID != "b" || b.Pod != "default/b" || b.Network != "weft" || b.Trouble != "its veth is gone" ||
		b.Addresses[0] != "10.244.1.3" || b.HasVeth == nil || b.Since.IsZero() || got.CoolingDown[0].Addresses[0] != "10.244.1.4" {
		t.Errorf("%+v\n%s", got, stdout)
	}
}

func TestRepairOfADamagedLeaseFile(t *testing.T) {
	dir, store := leased(t)
	other, err := ipam.Open(dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	lease := ipam.Lease{Attachment: ipam.Attachment{ContainerID: "of-other", IfName: "eth0"}, Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.1")}}
	if err := other.Record(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(store.Path(), 100); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"list", "check"} {
		code, stdout, stderr := ipamCommand(t, dir, command)
		if code != exitFailure || !strings.Contains(stderr, store.Path()+": lease file is damaged: ") || !strings.Contains(stderr, "weftd, or `weft ipam gc`, rebuilds") {
			t.Errorf("%s: exit status %d, %s", command, code, stderr)
		}
		if command == "list" && !strings.Contains(stdout, "of-other/eth0") {
			t.Errorf("what can be read is not shown:\n%s", stdout)
		}
	}
	code, _, stderr := ipamCommand(t, dir, "release", "a")
	if code != exitFailure || !strings.Contains(stderr, `no pod has "a"`) || !strings.Contains(stderr, "damaged") {
		t.Errorf("release: exit status %d, %s", code, stderr)
	}
	code, stdout, stderr := ipamCommand(t, dir, "gc")
	if code != 0 || stderr != "" || !strings.Contains(stdout, store.Path()+" was damaged") || !strings.Contains(stdout, "weft.json.damaged") {
		t.Errorf("gc: exit status %d, %s%s", code, stderr, stdout)
	}
	expectIPAM(t, dir, []string{"check"}, 0, "", "")

	// With two damaged files weft can't know of which network a pod is.
	for _, damaged := range []*ipam.Store{store, other} {
		if err := os.WriteFile(damaged.Path(), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr = ipamCommand(t, dir, "gc")
	if code != exitFailure || stderr != "weft: 2 troubles left that only you can repair\n" || !strings.Contains(stdout, "remove the files") {
		t.Errorf("gc: exit status %d, %s%s", code, stderr, stdout)
	}
}

func TestWrongUseOfIPAMHasARemedy(t *testing.T) {
	dir, _ := leased(t)
	missing, file := filepath.Join(dir, "missing"), filepath.Join(dir, "ipam", "weft.json")
	help := func(command string) string { return "; `weft ipam" + command + " --help` shows how to call it\n" }
	for _, tt := range []struct {
		dir    string
		args   []string
		code   int
		stderr string
	}{
		{missing, []string{"list"}, 1, "weft: there is no folder " + missing + "; if weftd has another stateDir, name it with --state-dir\n"},
		{missing, []string{"gc"}, 1, "weft: there is no folder " + missing + "; if weftd has another stateDir, name it with --state-dir\n"},
		{file, []string{"check"}, 1, "weft: there is no folder " + file + "; if weftd has another stateDir, name it with --state-dir\n"},
		{"relative", []string{"release", "a"}, 2, `weft: --state-dir "relative": the path must be absolute` + help(" release")},
		{dir, []string{"gc", "--network", "wift"}, 1, `weft: there are no leases of a network "wift", but of weft; name weftd's network with --network` + "\n"},
		{dir, []string{"release"}, 2, "weft: requires at least 1 arg(s), only received 0" + help(" release")},
		{dir, []string{"release", ""}, 2, "weft: an argument is empty; name an address or a container" + help(" release")},
		{dir, []string{"list", "a"}, 2, `weft: unknown command "a" for "weft ipam list"` + help(" list")},
		{dir, []string{"lits"}, 2, `weft: unknown command "lits" for "weft ipam"` + help("")},
		{dir, []string{"gc", "-o", "yaml"}, 2, `weft: unknown output format "yaml"; there are text and json` + help(" gc")},
		{dir, []string{"release", "-o", "yaml", "a"}, 2, `weft: unknown output format "yaml"; there are text and json` + help(" release")},
	} {
		expectIPAM(t, tt.dir, tt.args, tt.code, "", tt.stderr)
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("a folder was made: %v", err)
	}
	if code, stdout, _ := ipamCommand(t, dir); code != 0 || !strings.Contains(stdout, "release") {
		t.Errorf("without a command: exit status %d\n%s", code, stdout)
	}
}
