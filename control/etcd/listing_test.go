package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/control"
	"weft/internal/family"
	"weft/internal/strict"
)

func testOptions(node string) *Options {
	return &Options{Prefix: "/weft", Node: node, ClusterCIDRs: prefixes("10.244.0.0/16"), MaskIPv4: 24}
}

// kv is a key under the prefix, its value, and the revision in which that was written.
func kv(key, value string, revision int64) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte("/weft/" + key), Value: []byte(value), ModRevision: revision}
}

func answer(revision int64, kvs ...*mvccpb.KeyValue) *clientv3.GetResponse {
	return &clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{Revision: revision}, Kvs: kvs}
}

func entryOf(name string, podCIDRs ...string) string {
	self := selfOf(name)
	text, err := json.Marshal(control.Node{Name: name, Endpoint: self.Endpoint, Key: self.Key, PodCIDRs: prefixes(podCIDRs...)})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestNodesStandInTheOrderOfTheirClaims(t *testing.T) {
	l := newListing(testOptions("b"), answer(20,
		kv("nodes/a", entryOf("a", "10.244.1.0/24"), 3), kv("podcidrs/v4/a", "10.244.1.0/24", 12),
		kv("nodes/b", entryOf("b", "10.244.2.0/24", "fd00::/64"), 9), kv("podcidrs/v4/b", "10.244.2.0/24", 5), kv("podcidrs/v6/b", "fd00::/64", 9),
		kv("nodes/c", entryOf("c", "10.244.3.0/24"), 18), kv("podcidrs/v4/c", "10.244.3.0/24", 8),
	), nil)
	state := l.state(nil)
	if got := fmt.Sprint(namesOf(state)); got != "[b c a]" || state.Refused != nil {
		t.Errorf("%s, refused: %v", got, state.Refused)
	}
}

// A cluster gets a second family: "old" has claimed in the first one before "young", and in
// the second one after it.
func TestAddedFamilyKeepsTheOtherClaims(t *testing.T) {
	for _, tt := range []struct {
		name, young string
		want        string
	}{
		{"the young one has a CIDR of its own", "10.244.2.0/24", "[old young]"},
		{"the young one claims the old one's", "10.244.1.0/24", "[old]"},
	} {
		for _, us := range []string{"old", "other"} {
			o := testOptions(us)
			o.ClusterCIDRs = prefixes("10.244.0.0/16", "fd00:244::/48")
			l := newListing(o, answer(100,
				kv("nodes/old", entryOf("old", "10.244.1.0/24", "fd00:244::/64"), 100), kv("podcidrs/v4/old", "10.244.1.0/24", 10), kv("podcidrs/v6/old", "fd00:244::/64", 100),
				kv("nodes/young", entryOf("young", tt.young), 50), kv("podcidrs/v4/young", tt.young, 50),
			), nil)
			state := l.state(nil)
			refused := "<nil>"
			if tt.want == "[old]" {
				refused = "etcd /weft/nodes/young: young: its pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24, which node old claimed first; restart weftd there, or remove the node (weft node remove young)"
			}
			if got := fmt.Sprint(namesOf(state)); got != tt.want || fmt.Sprint(state.Refused) != refused {
				t.Errorf("%s, to %s: %s, refused: %v", tt.name, us, got, state.Refused)
			}
		}
	}
}

func TestWhatIsWrongWithANodeCostsThisNodeOnly(t *testing.T) {
	good := []*mvccpb.KeyValue{
		kv("nodes/good", entryOf("good", "10.244.1.0/24"), 3), kv("podcidrs/v4/good", "10.244.1.0/24", 3),
	}
	for _, tt := range []struct {
		name string
		kvs  []*mvccpb.KeyValue
		want string
	}{
		{"no claim", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.2.0/24"), 4)},
			"etcd /weft/nodes/bad: bad: its pod CIDR 10.244.2.0/24 is not claimed: there is no key /weft/podcidrs/v4/bad; restart weftd there, or remove the node (weft node remove bad)"},
		{"another's claim", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.1.0/24"), 4)},
			"its pod CIDR 10.244.1.0/24 is not claimed"},
		{"another claim", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.1.0/24"), 4), kv("podcidrs/v4/bad", "10.244.2.0/24", 4)},
			"its pod CIDR is 10.244.1.0/24, but it has claimed 10.244.2.0/24"},
		{"a claim that is none", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.2.0/24"), 4), kv("podcidrs/v4/bad", "10.244.2.1/24", 4)},
			"its claim /weft/podcidrs/v4/bad: 10.244.2.1/24 has bits set behind its length; write 10.244.2.0/24"},
		{"a claim in the wrong family", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.2.0/24"), 4), kv("podcidrs/v4/bad", "fd00::/64", 4)},
			"fd00::/64 is not IPv4"},
		{"two CIDRs in a family", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.2.0/24", "10.244.3.0/24"), 4), kv("podcidrs/v4/bad", "10.244.2.0/24", 4)},
			"its pod CIDR is 10.244.3.0/24, but it has claimed 10.244.2.0/24"},
		{"no JSON", []*mvccpb.KeyValue{kv("nodes/bad", "\x1b[31m{", 4)}, `etcd /weft/nodes/bad: bad: "\x1b[31m{" is not a node's entry: invalid character`},
		{"too long", []*mvccpb.KeyValue{kv("nodes/bad", strings.Repeat(" ", mostBytes)+"{}", 4)}, "the entry has 4098 bytes, more than 4096"},
		{"another's entry", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("good", "10.244.1.0/24"), 4)}, `the entry is that of another node, "good"`},
		{"a path", []*mvccpb.KeyValue{kv("nodes/../../etc/passwd", entryOf("bad"), 4)}, `etcd /weft/nodes/"../../etc/passwd": "../../etc/passwd": "../../etc/passwd" is not a valid node name`},
		{"a path below", []*mvccpb.KeyValue{kv("nodes/good/x", entryOf("bad"), 4)}, `"good/x" is not a valid node name`},
		{"no name", []*mvccpb.KeyValue{kv("nodes/", entryOf(""), 4)}, `the node has no name`},
		{"bad bytes in the key", []*mvccpb.KeyValue{kv("nodes/\xff\n\x1b[31m", "{}", 4)}, `"\xff\n\x1b[31m" is not a valid node name`},
		{"a number that is none", []*mvccpb.KeyValue{kv("nodes/bad", `{"name":"bad","endpoint":"`+strings.Repeat("9", 3000)+`"}`, 4)}, `is not a node's entry`},
		{"an older claim", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.1.0/25"), 4), kv("podcidrs/v4/bad", "10.244.1.0/25", 4)},
			"its pod CIDR 10.244.1.0/25 overlaps 10.244.1.0/24, which node good claimed first; restart weftd there, or remove the node (weft node remove bad)"},
		{"an older claim inside", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.244.0.0/20"), 4), kv("podcidrs/v4/bad", "10.244.0.0/20", 4)},
			"its pod CIDR 10.244.0.0/20 overlaps 10.244.1.0/24, which node good claimed first"},
		{"outside the cluster CIDRs", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad", "10.245.0.0/24"), 4), kv("podcidrs/v4/bad", "10.245.0.0/24", 4)},
			"pod CIDR 10.245.0.0/24 is in none of the cluster CIDRs (10.244.0.0/16)"},
		{"no pod CIDRs", []*mvccpb.KeyValue{kv("nodes/bad", entryOf("bad"), 4), kv("podcidrs/v4/bad", "10.244.2.0/24", 4)}, "has no pod CIDRs"},
		{"foreign keys", []*mvccpb.KeyValue{kv("", "x", 4), kv("nodes", "x", 4), kv("podcidrs/v5/bad", "x", 4)}, ""},
		{"a claim without an entry", []*mvccpb.KeyValue{kv("podcidrs/v4/bad", "10.244.2.0/24", 4)},
			`etcd /weft/podcidrs/v4/bad: bad: the node claims "10.244.2.0/24", but has no entry; restart weftd there, or remove the node (weft node remove bad)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state := newListing(testOptions("good"), answer(20, slices.Concat(tt.kvs, good)...), nil).state(nil)
			plan, err := control.NewPlan(state, control.Options{Node: "good", ClusterCIDRs: prefixes("10.244.0.0/16")})
			if err != nil {
				t.Fatal(err)
			}
			refused := ""
			if plan.Refused != nil {
				refused = plan.Refused.Error()
			}
			if len(plan.Peers) != 0 || !strings.Contains(refused, tt.want) || (tt.want == "") != (refused == "") {
				t.Errorf("%d peers, refused: %s; want: %s", len(plan.Peers), refused, tt.want)
			}
			if len(refused) > 1000 || !utf8.ValidString(refused) || strings.Contains(refused, "\x1b") {
				t.Errorf("not fit for a log: %q", refused)
			}
		})
	}
}

func TestManyProblemsAreReportedInOrder(t *testing.T) {
	var kvs []*mvccpb.KeyValue
	for i := range 200 {
		kvs = append(kvs, kv(fmt.Sprintf("nodes/bad%03d", i), "{", 4), kv(fmt.Sprintf("podcidrs/v4/gone%03d", i), "10.244.2.0/24", 4))
	}
	told := fmt.Sprint(newListing(testOptions("a"), answer(20, kvs...), nil).state(nil).Refused)
	for _, want := range []string{"bad000", "bad049", "and 350 more problems"} {
		if !strings.Contains(told, want) {
			t.Errorf("%s is not in:\n%s", want, told)
		}
	}
	for range 20 {
		if again := fmt.Sprint(newListing(testOptions("a"), answer(20, kvs...), nil).state(nil).Refused); again != told {
			t.Fatalf("first:\n%s\nthen:\n%s", told, again)
		}
	}
}

func TestListingFollowsEvents(t *testing.T) {
	o := testOptions("a")
	first := answer(20,
		kv("nodes/a", entryOf("a", "10.244.1.0/24"), 3), kv("podcidrs/v4/a", "10.244.1.0/24", 3),
		kv("nodes/b", entryOf("b", "10.244.2.0/24"), 4), kv("podcidrs/v4/b", "10.244.2.0/24", 4))
	l := newListing(o, first, nil)
	before := l.state(nil)
	same := func() bool { return reflect.DeepEqual(l.state(nil), before) }
	if l = newListing(o, first, l); !same() {
		t.Error("the same list makes another State")
	}
	l.apply([]*clientv3.Event{{Type: mvccpb.PUT, Kv: kv("other", "x", 21)}, {Type: mvccpb.DELETE, Kv: kv("nodes/none", "", 22)}})
	if !same() || l.revision != 22 {
		t.Errorf("foreign keys make another State, or don't count: revision %d", l.revision)
	}
	l.apply([]*clientv3.Event{
		{Type: mvccpb.DELETE, Kv: kv("nodes/b", "", 23)}, {Type: mvccpb.DELETE, Kv: kv("podcidrs/v4/b", "", 23)},
		{Type: mvccpb.PUT, Kv: kv("nodes/c", entryOf("c", "10.244.2.0/24"), 24)}, {Type: mvccpb.PUT, Kv: kv("podcidrs/v4/c", "10.244.2.0/24", 24)},
	})
	if got := fmt.Sprint(namesOf(l.state(nil))); got != "[a c]" || l.revision != 24 {
		t.Errorf("%s, revision %d", got, l.revision)
	}
	again := append(slices.Clone(first.Kvs[2:]), first.Kvs[0], kv("podcidrs/v4/a", "10.244.1.0/24", 31))
	if l = newListing(o, answer(31, again...), l); fmt.Sprint(namesOf(l.state(nil))) != "[b a]" {
		t.Errorf("a claim that was written again keeps its rank: %v", namesOf(l.state(nil)))
	}
	if l = newListing(o, answer(32, first.Kvs[:2]...), l); fmt.Sprint(namesOf(l.state(nil))) != "[a]" {
		t.Errorf("what is no longer listed stays: %v", namesOf(l.state(nil)))
	}
}

func TestANodeIsWhatItSaysWhateverItsEntrySays(t *testing.T) {
	l := newListing(testOptions("a"), answer(20, kv("nodes/a", "{", 3), kv("podcidrs/v4/a", "10.244.1.0/24", 3)), nil)
	r, err := l.registration(selfOf("a"), nil)
	if err != nil || len(r.claims) != 0 || r.entry != entryOf("a", "10.244.1.0/24") {
		t.Fatalf("%+v, %v", r, err)
	}
	state := l.state(&r.node)
	if own := nodeOf(t, state, "a"); own.Endpoint != selfOf("a").Endpoint || state.Refused != nil {
		t.Errorf("%+v, refused: %v", own, state.Refused)
	}
}

func TestWhatANodeHeldIsItsOwnIfItCanBe(t *testing.T) {
	held := prefixes("10.244.7.0/25")
	for _, tt := range []struct {
		name      string
		kvs       []*mvccpb.KeyValue
		held, own []netip.Prefix // by this Run, and by the snapshot
		want      string
		lost      string
	}{
		{"etcd has lost all", nil, held, nil, "10.244.7.0/25", ""},
		{"etcd has lost all while weftd was down", nil, nil, held, "10.244.7.0/25", ""},
		{"the snapshot is of a time before this Run", nil, held, prefixes("10.244.8.0/24"), "10.244.7.0/25", ""},
		{"the claim alone is lost", []*mvccpb.KeyValue{kv("nodes/a", entryOf("a", "10.244.9.0/26"), 3)}, nil, nil, "10.244.9.0/26", ""},
		{"its entry says something else", []*mvccpb.KeyValue{kv("nodes/a", entryOf("a", "10.244.9.0/26"), 3)}, nil, held, "10.244.7.0/25", ""},
		{"it is claimed", []*mvccpb.KeyValue{kv("podcidrs/v4/a", "10.244.7.0/25", 3)}, nil, held, "10.244.7.0/25", ""},
		{"it is another's now", []*mvccpb.KeyValue{kv("podcidrs/v4/b", "10.244.7.0/24", 3)}, nil, held, "another",
			"no pod CIDR yet: 10.244.7.0/25 of this node overlaps an earlier claim of b; this node claims another, and its pods must be recreated"},
		{"what it has claimed is another's", []*mvccpb.KeyValue{kv("podcidrs/v4/a", "10.244.7.0/25", 4), kv("podcidrs/v4/b", "10.244.7.0/24", 3)}, nil, nil, "another",
			"no pod CIDR yet: 10.244.7.0/25 of this node overlaps an earlier claim of b"},
		{"what it has claimed is another's, but not what it held", []*mvccpb.KeyValue{kv("podcidrs/v4/a", "10.244.8.0/24", 4), kv("podcidrs/v4/b", "10.244.8.0/24", 3)}, nil, held, "10.244.7.0/25", ""},
		{"it has claimed something else", []*mvccpb.KeyValue{kv("podcidrs/v4/a", "10.244.8.0/24", 3)}, nil, held, "10.244.8.0/24",
			"no pod CIDR yet: this node had 10.244.7.0/25, but has claimed 10.244.8.0/24, which counts; its pods must be recreated"},
	} {
		self := selfOf("a")
		self.Held = tt.own
		r, err := newListing(testOptions("a"), answer(20, tt.kvs...), nil).registration(self, tt.held)
		if err != nil || len(r.node.PodCIDRs) != 1 {
			t.Errorf("%s: %+v, %v", tt.name, r, err)
			continue
		}
		had := slices.Concat(tt.held, tt.own)
		if got := r.node.PodCIDRs[0]; tt.want != "another" && got.String() != tt.want || tt.want == "another" && (got.Bits() != 24 || slices.Contains(had, got)) {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.want)
		}
		if errors.Is(r.lost, control.ErrNoPodCIDR) != (tt.lost != "") || !strings.Contains(fmt.Sprint(r.lost), tt.lost) {
			t.Errorf("%s: lost: %v; want %s", tt.name, r.lost, tt.lost)
		}
	}
}

func TestForeignClaimIsNotReplacedSilently(t *testing.T) {
	o := testOptions("a")
	for _, claim := range []*mvccpb.KeyValue{kv("podcidrs/v4/a", "10.245.1.0/24", 3), kv("podcidrs/v6/a", "fd00::/64", 3)} {
		_, err := newListing(o, answer(20, claim), nil).registration(selfOf("a"), nil)
		if !errors.Is(err, control.ErrNoPodCIDR) || !strings.Contains(err.Error(), "weft node remove a") || !strings.Contains(err.Error(), string(claim.Value)) {
			t.Errorf("%s: %v", claim.Value, err)
		}
	}
}

func TestANodeWithoutAnAddressIsNotRegistered(t *testing.T) {
	self := selfOf("a")
	self.Endpoint = netip.AddrPortFrom(netip.Addr{}, 9338)
	if _, err := newListing(testOptions("a"), answer(1), nil).registration(self, nil); err == nil || !strings.Contains(err.Error(), "advertise") {
		t.Error(err)
	}
}

func BenchmarkSettleAmongFiveThousand(b *testing.B) {
	o := testOptions("node1")
	o.ClusterCIDRs = prefixes("10.0.0.0/8")
	var kvs []*mvccpb.KeyValue
	for i := range 5000 {
		name, cidr := fmt.Sprint("node", i), fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)
		kvs = append(kvs, kv("nodes/"+name, entryOf(name, cidr), int64(i+1)), kv("podcidrs/v4/"+name, cidr, int64(i+1)))
	}
	l := newListing(o, answer(9000, kvs...), nil)
	for b.Loop() {
		l.stands = nil // as after a claim
		registered, err := l.registration(selfOf("node1"), nil)
		if err != nil || registered.entry != "" || len(l.state(&registered.node).Nodes) != 5000 {
			b.Fatalf("%+v, %v", registered, err)
		}
	}
}

// Any key and value makes a State that makes a Plan, in which no node has what it has not
// claimed, and messages that are fit for a log.
func FuzzListing(f *testing.F) {
	f.Add("nodes/b", entryOf("b", "10.244.2.0/24"), "podcidrs/v4/b", "10.244.2.0/24")
	f.Add("nodes/b", `{"name":"b","podCIDRs":["10.244.1.0/24"]}`, "podcidrs/v4/a", "10.244.1.0/24")
	f.Add("nodes/\x00", "null", "podcidrs/v6/b", "::ffff:10.0.0.0/120")
	f.Add("nodes/a", "[]", "podcidrs/v4/../b", "0.0.0.0/0")
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string) {
		own := []*mvccpb.KeyValue{kv("nodes/a", entryOf("a", "10.244.1.0/24"), 3), kv("podcidrs/v4/a", "10.244.1.0/24", 3)}
		l := newListing(testOptions("a"), answer(9, own...), nil)
		events := []*clientv3.Event{{Type: mvccpb.PUT, Kv: kv(key1, value1, 10)}, {Type: mvccpb.PUT, Kv: kv(key2, value2, 11)}}
		l.apply(events)
		listed := newListing(testOptions("a"), answer(11, append(own, events[0].Kv, events[1].Kv)...), nil)
		r, err := l.registration(selfOf("a"), prefixes("10.244.1.0/24"))
		if err != nil {
			return // its own claim was changed, to one outside the cluster CIDRs
		}
		for _, p := range r.node.PodCIDRs {
			if !strict.Within(p, l.options.ClusterCIDRs) {
				t.Errorf("it would claim %s", p)
			}
		}
		state := l.state(nil)
		if key1 != key2 && !strings.HasPrefix(key1+key2, "nodes/a") && !strings.HasSuffix(key1, "/a") && !strings.HasSuffix(key2, "/a") {
			if again := listed.state(nil); fmt.Sprint(again) != fmt.Sprint(state) {
				t.Errorf("by events: %v; by a list: %v", state, again)
			}
		}
		for _, n := range state.Nodes {
			if err := strict.CheckNodeName(n.Name); err != nil {
				t.Error(err)
			}
			for _, p := range n.PodCIDRs {
				if c := l.claims[family.Of(p.Addr())][n.Name]; c.cidr != p {
					t.Errorf("%s has %s, but has claimed %s", n.Name, p, c.cidr)
				}
			}
		}
		plan, err := control.NewPlan(state, control.Options{Node: "a", ClusterCIDRs: prefixes("10.244.0.0/16")})
		if err == nil && plan.Refused != nil {
			err = plan.Refused
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
			t.Errorf("not fit for a log: %q", err)
		}
	})
}
