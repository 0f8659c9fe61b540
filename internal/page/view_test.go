package page

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/drop"
	"weft/internal/events"
	"weft/internal/family"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/ipam"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestTheFirstLineIsTheVerdict(t *testing.T) {
	for _, tt := range []struct {
		name   string
		report status.Report
		want   string
	}{
		{"nothing is wrong", status.Report{Ready: true}, "good Ready: nothing is wrong"},
		{"a warning", status.Report{Ready: true, Warnings: []warning.Warning{{Code: "udp_gso"}}}, "warn Ready: 1 warning"},
		{"pods suffer", status.Report{Ready: true, Warnings: []warning.Warning{{Code: "pool_exhausted"}}}, "bad Degraded: no pod address is free"},
		{"it starts", status.Report{NotReady: "weftd is starting"}, "bad Not ready: weftd is starting"},
	} {
		tt.report.Diagnose()
		v := newView(tt.report, events.Page{}, noon)
		if got := fmt.Sprintf("%s %s: %s", v.Level, v.Word, v.Summary); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRemediesStandByThemselves(t *testing.T) {
	r := status.Report{Ready: true, RecentDrops: map[string]uint64{}, RecentGuardDrops: map[string]uint64{"spoofed_by_pod": 2},
		Warnings: []warning.Warning{{Code: "a", Text: "it is broken: no space; and so on; repair it"}, {Code: "b", Text: "without"}}}
	for _, reason := range drop.All() {
		r.RecentDrops[reason.String()] = 1
	}
	r.Diagnose()
	remedies := map[string]string{}
	all, _ := problemsOf(r)
	for _, p := range all {
		remedies[p.Code] = p.Remedy
		if strings.Contains(p.What, p.Remedy) && p.Remedy != "" {
			t.Errorf("%s: the remedy %q is in %q too", p.Code, p.Remedy, p.What)
		}
	}
	want := map[string]string{"a": "repair it", "b": "", "no_keys": drop.NoKeys.Explain().Remedy}
	for code, remedy := range want {
		if remedies[code] != remedy {
			t.Errorf("%s: %q, want %q", code, remedies[code], remedy)
		}
	}
}

// TestSecretsThatAreReadableAreNotNamed: whoever may read the page could read them then.
func TestSecretsThatAreReadableAreNotNamed(t *testing.T) {
	r := status.Report{Ready: true, Warnings: []warning.Warning{{Code: "secret_readable", Text: "/etc/weft/password is readable by all; chmod it"}}}
	r.Diagnose()
	journal := events.Page{Events: []events.Event{{Code: "warning_raised", Subject: "secret_readable", Text: "warning=/etc/weft/password"}}}
	v := newView(r, journal, noon)
	if shown := fmt.Sprintf("%+v", v); strings.Contains(shown, "/etc/weft") || !strings.Contains(shown, "secret_readable") {
		t.Errorf("shown: %s", shown)
	}
}

// link is a peer with keys, as weft peers has it.
func link(state string) status.Peer {
	return status.Peer{Name: state, Link: &status.Link{State: state}, Path: &status.Path{Answered: noon, MTU: 1440, Largest: 1440}}
}

func TestWhatIsWrongWithAPeerIsSaid(t *testing.T) {
	change := func(f func(*status.Peer)) status.Peer {
		p := link("up")
		f(&p)
		return p
	}
	for _, tt := range []struct {
		name string
		peer status.Peer
		want string
	}{
		{"up", link("up"), "good up: "},
		{"idle", link("idle"), "neutral idle: "},
		{"unreachable", change(func(p *status.Peer) { p.State, p.Error = "unreachable", "it does not answer" }), "bad unreachable: it does not answer"},
		{"only its data path is silent", change(func(p *status.Peer) { p.Path.Silent = true }), "bad data path silent: it has keys, but does not answer probes on the data path"},
		{"old keys", change(func(p *status.Peer) { p.KeysOverdue, p.Error = true, "refused" }), "warn up: the data keys are too old: refused"},
		{"loss", change(func(p *status.Peer) { p.Path.Loss = 0.1 }), "warn up: probes get lost on the way"},
		{"small path MTU", change(func(p *status.Peer) { p.Path.MTU = 1240 }), "warn up: the path carries packets of 1240 bytes, and pods may send 1440"},
		{"lost runs, as probes show", change(func(p *status.Peer) { p.Path.RunsLost = true }), "warn up: datagrams that are sent in one message get lost, so weftd sends each alone"},
		{"lost runs", change(func(p *status.Peer) { p.RunsLost = true }), "warn up: datagrams that are sent in one message get lost, so weftd sends each alone"},
		{"vxlan, silent", status.Peer{Path: &status.Path{Answered: noon, Silent: true}}, "bad unreachable: it answered probes before, and does not now; check that weftd runs there, and that the underlay passes UDP both ways"},
		{"vxlan, a kernel device", status.Peer{}, "neutral unknown: "},
	} {
		p := peerOf(tt.peer, noon)
		if got := fmt.Sprintf("%s %s: %s", p.Level, p.State, p.Why); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// peers are so many with trouble, and so many others, each busier than the next.
func peers(troubled, others int) (all []peer) {
	for i := range troubled {
		all = append(all, peer{Name: fmt.Sprintf("t%d", i), Level: bad, status: "unreachable", unreachable: true})
	}
	for i := range others {
		all = append(all, peer{Name: fmt.Sprintf("o%d", i), Level: good, status: "up", sent: uint64(others - i)})
	}
	return all
}

func TestThePictureShowsTroubleAndTheBusiest(t *testing.T) {
	for _, tt := range []struct {
		troubled, others int
		want             string
	}{
		{0, 0, ""},
		{1, 2, "t0 o0 o1"},
		{0, 12, "o0 o1 o2 o3 o4 o5 o6 o7 o8 o9 o10 o11"},
		{1, 20, "t0 o0 o1 o2 o3 o4 o5 o6 o7 o8 o9 10 more: 10 up"},
		{20, 20, "t0 t1 t2 t3 t4 t5 t6 t7 o0 o1 o2 29 more: 12 unreachable, 17 up"},
		{20, 1, "t0 t1 t2 t3 t4 t5 t6 t7 t8 t9 o0 10 more: 10 unreachable"},
		{0, 5000, "o0 o1 o2 o3 o4 o5 o6 o7 o8 o9 o10 4,989 more: 4,989 up"},
	} {
		var got []string
		for _, c := range cardsOf(peers(tt.troubled, tt.others)) {
			if c.Rest != nil {
				got = append(got, c.Rest.Count+" more: "+c.State)
			} else {
				got = append(got, c.Name)
			}
		}
		if shown := strings.Join(got, " "); shown != tt.want {
			t.Errorf("%d and %d: %s, want %s", tt.troubled, tt.others, shown, tt.want)
		}
	}
}

func TestLinesEndAtTheirCards(t *testing.T) {
	var got []string
	for _, c := range cardsOf(peers(1, 2)) {
		got = append(got, fmt.Sprintf("%s %v,%v", c.Side, c.Line.EdgeX, c.Line.Y))
	}
	if want := []string{"left 0,25", "right 100,25", "left 0,75"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPoolsOfAnySizeAreShown(t *testing.T) {
	for _, tt := range []struct {
		pool ipam.PoolUsage
		want string
	}{
		{ipam.PoolUsage{Size: 254, Leased: 3, CoolingDown: 2}, "good 3 of 254 leased, 2 cooling down"},
		{ipam.PoolUsage{Size: 100, Leased: 90}, "warn 90 of 100 leased"},
		{ipam.PoolUsage{Size: 2, Leased: 2}, "bad 2 of 2 leased"},
		{ipam.PoolUsage{Size: math.MaxUint64, Leased: 2}, "good 2 leased, billions free"},
		{ipam.PoolUsage{}, "bad 0 of 0 leased"},
	} {
		tt.pool.Family = family.IPv4
		p := poolsOf(status.Leases{Pools: []ipam.PoolUsage{tt.pool}})[0]
		if got := string(p.Level) + " " + p.Text; got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.pool, got, tt.want)
		}
		if p.Used < 0 || p.Cooling < 0 || p.Used+p.Cooling > 100 {
			t.Errorf("%+v: %v and %v percent of the bar", tt.pool, p.Used, p.Cooling)
		}
	}
}

func TestNumbersAreForPeople(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(1234567): "1,234,567",
		roundTrip(0): "", roundTrip(310 * time.Microsecond): "0.31 ms", roundTrip(12 * time.Millisecond): "12 ms",
		ago(time.Time{}, noon): "", ago(noon.Add(time.Second), noon): "0 s ago", ago(noon.Add(-59*time.Second), noon): "59 s ago",
		ago(noon.Add(-90*time.Minute), noon): "1 h ago", ago(noon.Add(-50*time.Hour), noon): "2 d ago",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
