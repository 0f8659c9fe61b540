package etcd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/control"
	"weft/internal/family"
	"weft/internal/strict"
)

// listing is what the keys say, kept up to date by events.
type listing struct {
	options *Options

	// revision is that of the list, or of the last event since.
	revision int64

	entries map[string]entry                   // by name
	claims  map[family.Family]map[string]claim // by name

	// stands is what standing has returned; nil after a claim has changed.
	stands *standing
}

// entry is what a node says of itself.
type entry struct {
	raw      string
	revision int64 // in which the entry was written
	node     control.Node
	err      error // why the entry can't be believed
}

// claim is the pod CIDR that a node claims in one family.
type claim struct {
	raw      string
	revision int64 // in which the claim was written
	cidr     netip.Prefix
	err      error
}

// newListing makes a listing of what etcd has listed. What is the same in the one before,
// which may be nil, is not parsed again.
func newListing(o *Options, list *clientv3.GetResponse, before *listing) *listing {
	l := &listing{
		options:  o,
		revision: list.Header.Revision,
		entries:  make(map[string]entry, len(list.Kvs)/2),
		claims:   map[family.Family]map[string]claim{family.IPv4: {}, family.IPv6: {}},
	}
	for _, kv := range list.Kvs {
		l.put(kv, before)
	}
	return l
}

// apply brings the listing up to date.
func (l *listing) apply(events []*clientv3.Event) {
	for _, e := range events {
		l.revision = max(l.revision, e.Kv.ModRevision)
		if e.Type == mvccpb.DELETE {
			l.remove(string(e.Kv.Key))
		} else {
			l.put(e.Kv, l)
		}
	}
}

// put takes a key and its value over, from the listing before if that has the same value.
// What is no key of an entry or claim is ignored.
func (l *listing) put(kv *mvccpb.KeyValue, before *listing) {
	raw := string(kv.Value)
	if name, ok := strings.CutPrefix(string(kv.Key), l.options.entryKey("")); ok {
		known, same := before.entry(name)
		if same = same && known.raw == raw; !same {
			node, err := parseEntry(name, kv.Value)
			node.Origin = "etcd " + l.options.entryKey(label(name))
			known = entry{raw: raw, node: node, err: err}
		}
		known.revision = kv.ModRevision
		l.entries[name] = known
	}
	for f := range l.claims {
		if name, ok := strings.CutPrefix(string(kv.Key), l.options.claimsKey(f)); ok {
			known, same := before.claim(f, name)
			if same = same && known.raw == raw; !same {
				cidr, err := parseClaim(f, kv.Value)
				known = claim{raw: raw, cidr: cidr, err: err}
			}
			known.revision = kv.ModRevision // its rank
			l.claims[f][name] = known
			l.stands = nil
		}
	}
}

func (l *listing) remove(key string) {
	if name, ok := strings.CutPrefix(key, l.options.entryKey("")); ok {
		delete(l.entries, name)
	}
	for f := range l.claims {
		if name, ok := strings.CutPrefix(key, l.options.claimsKey(f)); ok {
			delete(l.claims[f], name)
			l.stands = nil
		}
	}
}

// entry may be asked of a nil listing, and so may claim.
func (l *listing) entry(name string) (entry, bool) {
	if l == nil {
		return entry{}, false
	}
	e, ok := l.entries[name]
	return e, ok
}

func (l *listing) claim(f family.Family, name string) (claim, bool) {
	if l == nil {
		return claim{}, false
	}
	c, ok := l.claims[f][name]
	return c, ok
}

// mostBytes is far more than an entry needs: a name has 253 at most.
const mostBytes = 4096

// parseEntry returns the node that a value describes. Whether it makes sense is for
// control.NewPlan to say.
func parseEntry(name string, value []byte) (control.Node, error) {
	if err := strict.CheckNodeName(name); err != nil {
		return control.Node{}, err
	}
	if len(value) > mostBytes {
		return control.Node{}, fmt.Errorf("the entry has %d bytes, more than %d", len(value), mostBytes)
	}
	var node control.Node
	if err := json.Unmarshal(value, &node); err != nil {
		return control.Node{}, fmt.Errorf("%s is not a node's entry: %w", strict.Quote(string(value)), cut(err))
	}
	if node.Name != name {
		return control.Node{}, fmt.Errorf("the entry is that of another node, %s", strict.Quote(node.Name))
	}
	return node, nil
}

// cut returns an error whose text is fit for a message, as it may quote what was parsed.
func cut(err error) error {
	const limit = 200
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return fmt.Errorf("%s", strings.Trim(fmt.Sprintf("%q", text), `"`))
}

func parseClaim(f family.Family, value []byte) (netip.Prefix, error) {
	p, err := strict.ParsePrefix(string(value))
	if err != nil {
		return netip.Prefix{}, err
	}
	if family.Of(p.Addr()) != f {
		return netip.Prefix{}, fmt.Errorf("%s is not %s", p, f)
	}
	return p, nil
}

// state is what the listing says exists, oldest claims first. If self is not nil, then
// this node is what self says, whatever its entry says.
func (l *listing) state(self *control.Node) control.State {
	type ranked struct {
		control.Node
		revision int64
	}
	var nodes []ranked
	var problems strict.Problems
	add := func(name string, node control.Node, err error) {
		revision, claimErr := l.rank(node)
		if err == nil {
			err = claimErr
		}
		if err != nil {
			problems.Add(node.Origin, label(name), fmt.Errorf("%w; %s", err, remedy(name)))
			return
		}
		nodes = append(nodes, ranked{node, revision})
	}
	// In order, because of many problems only the first ones are reported: they must stay the same.
	for _, name := range slices.Sorted(maps.Keys(l.entries)) {
		if e := l.entries[name]; self == nil || name != self.Name {
			add(name, e.node, e.err)
		}
	}
	if self != nil {
		add(self.Name, *self, nil)
	}
	for _, f := range family.All {
		claims := l.claims[f]
		for _, name := range slices.Sorted(maps.Keys(claims)) {
			// It keeps its CIDR from others, and would be seen nowhere else.
			if _, known := l.entries[name]; !known && (self == nil || name != self.Name) {
				problems.Addf("etcd "+l.options.claimKey(f, label(name)), label(name), "the node claims %s, but has no entry; %s", strict.Quote(claims[name].raw), remedy(name))
			}
		}
	}
	slices.SortFunc(nodes, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.Name, b.Name))
	})
	state := control.State{Origin: "etcd " + l.options.Prefix, Registered: true, Refused: problems.Err()}
	for _, n := range nodes {
		state.Nodes = append(state.Nodes, n.Node)
	}
	return state
}

// rank returns the revision of the node's oldest claim, so that a family which is added later
// costs it nothing, or an error if it has a pod CIDR that is not its own.
func (l *listing) rank(n control.Node) (revision int64, err error) {
	revision = math.MaxInt64
	for _, p := range n.PodCIDRs {
		f := family.Of(p.Addr())
		c, ok := l.claim(f, n.Name)
		switch {
		case !ok:
			return 0, fmt.Errorf("its pod CIDR %s is not claimed: there is no key %s", p, l.options.claimKey(f, n.Name))
		case c.err != nil:
			return 0, fmt.Errorf("its claim %s: %w", l.options.claimKey(f, n.Name), c.err)
		case c.cidr != p:
			return 0, fmt.Errorf("its pod CIDR is %s, but it has claimed %s", p, c.cidr)
		}
		// What lies in no cluster CIDR is for control.NewPlan to refuse.
		if with, owner, taken := control.Overlapping(&l.standing().Table, p); taken && owner != n.Name {
			return 0, fmt.Errorf("its pod CIDR %s overlaps %s, which node %s claimed first", p, with, label(owner))
		}
		revision = min(revision, c.revision)
	}
	return revision, nil
}

// remedy is what to do about a node that can't be believed.
func remedy(name string) string {
	if strict.CheckNodeName(name) != nil {
		return "remove the key (etcdctl del)"
	}
	return "restart weftd there, or remove the node (weft node remove " + name + ")"
}

// label is a node's name, fit for a message.
func label(name string) string {
	if strict.CheckNodeName(name) == nil {
		return name
	}
	return strict.Quote(name)
}
