package kubernetes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"weft/control"
	"weft/internal/strict"
)

// nodes is what is kept of all Nodes: as little as a State needs. It is the store that a
// cache.Reflector fills.
type nodes struct {
	options Options
	changed func() // after something has changed that matters here
	contact *control.Contact

	mu     sync.Mutex
	listed bool // all Nodes were there at some time
	byName map[string]member

	// own is this node's own Node, stripped; nil if there is none.
	own *core.Node
}

// member is a node that takes part in the overlay, or would if nothing were wrong with it.
type member struct {
	created time.Time
	node    control.Node
	wrong   []error // none if node is what the Node says
}

var _ cache.TransformingStore = (*nodes)(nil)

func newNodes(o Options, changed func()) *nodes {
	return &nodes{options: o, changed: changed, contact: new(control.Contact), byName: make(map[string]member)}
}

// state returns the members as a whole State, the oldest Node first: whoever came later and
// claims what an older one has is wrong.
func (s *nodes) state() control.State {
	s.mu.Lock()
	members := slices.Collect(maps.Values(s.byName))
	s.mu.Unlock()
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.node.Name, b.node.Name))
	})
	state := control.State{Origin: origin, Registered: true, Nodes: make([]control.Node, 0, len(members))}
	var problems strict.Problems
	for _, m := range members {
		for _, wrong := range m.wrong {
			problems.Add(m.node.Origin, "", wrong)
		}
		if len(m.wrong) > 0 {
			continue
		}
		state.Nodes = append(state.Nodes, m.node)
	}
	state.Refused = problems.Err()
	return state
}

// self returns this node's own Node, nil if there is none; ok says whether that is known.
func (s *nodes) self() (own *core.Node, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own, s.listed
}

// count returns how many take part in the overlay.
func (s *nodes) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byName)
}

// put takes in what matters of a Node, and reports whether that is news.
func (s *nodes) put(n *core.Node) bool {
	n = s.strip(n)
	news := false
	if n.Name == s.options.Node {
		news = !sameOwn(s.own, n)
		s.own = n
	}
	before, was := s.byName[n.Name]
	if !isMember(n, s.options) {
		delete(s.byName, n.Name)
		return news || was
	}
	node, wrong := readNode(n, s.options)
	now := member{n.CreationTimestamp.Time, node, wrong}
	s.byName[n.Name] = now
	return news || !was || !before.equal(now)
}

// equal compares without reflection: every heartbeat of every kubelet's does.
func (m member) equal(o member) bool {
	a, b := m.node, o.node
	return m.created.Equal(o.created) && a.Name == b.Name && a.Origin == b.Origin &&
		a.Endpoint == b.Endpoint && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.PodCIDRs, b.PodCIDRs) && a.VTEPMAC == b.VTEPMAC && a.Key == b.Key &&
		slices.EqualFunc(m.wrong, o.wrong, func(a, b error) bool { return a.Error() == b.Error() })
}

// sameOwn compares all but the version, which every heartbeat of kubelet's changes. Either
// may be nil.
func sameOwn(a, b *core.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return maps.Equal(a.Annotations, b.Annotations) && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) &&
		slices.Equal(a.Status.Addresses, b.Status.Addresses) &&
		slices.EqualFunc(a.Status.Conditions, b.Status.Conditions, func(a, b core.NodeCondition) bool { return a.Status == b.Status })
}

// strip returns what is needed of a Node, which may be a stripped one: some hundred bytes
// of ten thousand.
func (s *nodes) strip(n *core.Node) *core.Node {
	little := &core.Node{ObjectMeta: meta.ObjectMeta{
		Name:              n.Name,
		ResourceVersion:   n.ResourceVersion,
		CreationTimestamp: n.CreationTimestamp,
		Annotations:       make(map[string]string),
	}}
	for key, value := range n.Annotations {
		if strings.HasPrefix(key, annotationPrefix) || s.options.FlannelCompat && strings.HasPrefix(key, flannelPrefix) {
			// A value that is cut is still too long to be a good one.
			little.Annotations[key] = strings.Clone(value[:min(len(value), maxAnnotation+1)])
		}
	}
	little.Spec.PodCIDRs = n.Spec.PodCIDRs
	if n.Name == s.options.Node {
		little.Status.Addresses = n.Status.Addresses
		for _, c := range n.Status.Conditions {
			if c.Type == core.NodeNetworkUnavailable {
				little.Status.Conditions = append(little.Status.Conditions, core.NodeCondition{Type: c.Type, Status: c.Status})
			}
		}
	}
	return little
}

// Transformer implements cache.TransformingStore: a list of all Nodes is stripped while it
// arrives.
func (s *nodes) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		n, err := nodeOf(object)
		if err != nil {
			return nil, err
		}
		return s.strip(n), nil
	}
}

// Add implements cache.ReflectorStore.
func (s *nodes) Add(object any) error {
	n, err := nodeOf(object)
	if err != nil {
		return err
	}
	s.contact.Made()
	s.mu.Lock()
	news := s.put(n)
	s.mu.Unlock()
	if news {
		s.changed()
	}
	return nil
}

// Update implements cache.ReflectorStore.
func (s *nodes) Update(object any) error { return s.Add(object) }

// Delete implements cache.ReflectorStore.
func (s *nodes) Delete(object any) error {
	n, err := nodeOf(object)
	if err != nil {
		return err
	}
	s.contact.Made()
	s.mu.Lock()
	_, was := s.byName[n.Name]
	delete(s.byName, n.Name)
	if n.Name == s.options.Node {
		s.own, was = nil, true
	}
	s.mu.Unlock()
	if was {
		s.changed()
	}
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *nodes) Replace(objects []any, _ string) error {
	all := newNodes(s.options, nil)
	for _, object := range objects {
		n, err := nodeOf(object)
		if err != nil {
			return err
		}
		all.put(n)
	}
	s.mu.Lock()
	news := !s.listed || !sameOwn(s.own, all.own) || !maps.EqualFunc(s.byName, all.byName, member.equal)
	s.listed, s.own, s.byName = true, all.own, all.byName
	s.mu.Unlock()
	if news {
		s.changed()
	}
	return nil
}

// Resync implements cache.ReflectorStore. There is nothing to do again.
func (s *nodes) Resync() error { return nil }

func nodeOf(object any) (*core.Node, error) {
	switch n := object.(type) {
	case *littleNode:
		return &n.Node, nil
	case *core.Node:
		return n, nil
	}
	return nil, fmt.Errorf("%T is no Node", object)
}
