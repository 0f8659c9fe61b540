package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/control"
	"weft/internal/family"
	"weft/internal/strict"
	"weft/peer"
)

// entry returns the annotations that this node's Node must have; empty ones must not be there.
func (s *Source) entry(own *core.Node, self control.Self) (map[string]string, error) {
	if own == nil {
		return nil, fmt.Errorf("%w: there is no Node %s; kubelet makes it, or name this node differently under the configuration's key node", control.ErrNoPodCIDR, s.Node)
	}
	if len(own.Spec.PodCIDRs) == 0 {
		return nil, fmt.Errorf("%w: the Node %s has no spec.podCIDRs; start kube-controller-manager with --allocate-node-cidrs and --cluster-cidr", control.ErrNoPodCIDR, s.Node)
	}
	endpoint, err := s.endpoint(own, self.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("the Node %s: %w", s.Node, err)
	}
	want := map[string]string{annotationEndpoint: endpoint.String(), annotationAddresses: ""}
	if self.Key != (peer.Fingerprint{}) { // without a key, a node can prove no address
		// One that is there stays, as admission-policy.yaml requires: whoever has only this node's token must
		// not become this node for the others.
		if held, ok := own.Annotations[annotationKey]; ok && held != self.Key.String() {
			return nil, fmt.Errorf("the Node %s has the key %s, and this node the key %v; if it was installed anew, or its key replaced on purpose, run: kubectl annotate node %s %s-",
				s.Node, strict.Quote(held), self.Key, s.Node, annotationKey)
		}
		want[annotationKey] = self.Key.String()
		want[annotationAddresses] = s.addresses(own, self.Addresses, endpoint.Addr())
	}
	if s.FlannelCompat {
		addFlannel(want, s.Node, endpoint.Addr(), s.VNI)
	}
	return want, nil
}

// endpoint returns where other nodes reach this one: as an administrator says, as the node
// itself says, or at the Node's InternalIP.
func (s *Source) endpoint(own *core.Node, self netip.AddrPort) (netip.AddrPort, error) {
	if text, ok := own.Annotations[annotationOverride]; ok {
		endpoint, err := parseOverride(text, self.Port())
		if err != nil {
			err = fmt.Errorf("the annotation %s: %w", annotationOverride, err)
		}
		return endpoint, err
	}
	if self.Addr().IsValid() {
		return self, nil
	}
	internal := internalIPs(own)
	for _, f := range s.Families {
		if addr := f.First(internal); addr.IsValid() {
			return netip.AddrPortFrom(addr, self.Port()), nil
		}
	}
	var names []string
	for _, f := range s.Families {
		names = append(names, f.String())
	}
	return netip.AddrPort{}, fmt.Errorf("it has no InternalIP of %s; write the address under the configuration's key advertise, or as the annotation %s",
		strings.Join(names, " or "), annotationOverride)
}

// internalIPs returns the Node's InternalIPs.
func internalIPs(own *core.Node) (all []netip.Addr) {
	for _, a := range own.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Zone() == "" && a.Type == core.NodeInternalIP {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// addresses returns, as the annotation has them, the further addresses that the node itself says,
// or the Node's InternalIPs but the endpoint's: those at which weftd listens, and which other
// nodes accept.
func (s *Source) addresses(own *core.Node, self []netip.Addr, endpoint netip.Addr) string {
	var texts []string
	for _, a := range self {
		texts = append(texts, a.String())
	}
	if len(self) > 0 || s.OneAddress {
		return strings.Join(texts, ",")
	}
	for _, addr := range internalIPs(own) {
		listens := slices.Contains(s.Families, family.Of(addr))
		if addr != endpoint && listens && strict.CheckNodeAddress(addr, s.ClusterCIDRs) == nil && len(texts) < strict.MaxNodeAddresses {
			texts = append(texts, addr.String())
		}
	}
	return strings.Join(texts, ",")
}

// registered says whether weft's own annotations are as wanted, but for the further addresses:
// an admission policy of an earlier weft refuses these, and the node does without.
func registered(own *core.Node, want map[string]string) bool {
	for key, value := range want {
		if strings.HasPrefix(key, annotationPrefix) && key != annotationAddresses && !holds(own, key, value) {
			return false
		}
	}
	return true
}

func holds(own *core.Node, key, value string) bool {
	found, ok := own.Annotations[key]
	return found == value && ok == (value != "")
}

// todo is what must be written: a merge patch (RFC 7386) of the annotations, empty if they are
// right, and the same without the further addresses, the condition NetworkUnavailable, if that
// is not, and the note of an event.
type todo struct {
	annotations string
	without     string
	condition   condition
	event       string
}

// condition is what the condition NetworkUnavailable must become; the zero value: what it is.
type condition struct {
	status          core.ConditionStatus
	reason, message string
}

// newCondition decides about the condition. It is False only while this node forwards with
// the pod CIDRs that its Node has. It is True for a Node that is new, or has others than this
// node forwards with: one that was deleted and made again is both, and no pod must come to it
// before it is done. A restart of weftd changes nothing.
func newCondition(own *core.Node, self control.Self) condition {
	var was core.ConditionStatus
	if len(own.Status.Conditions) > 0 {
		was = own.Status.Conditions[0].Status
	}
	var now condition
	switch forwards := samePrefixes(self.Forwards, own.Spec.PodCIDRs); {
	case forwards && self.Down == "":
		now = condition{core.ConditionFalse, "WeftIsUp", "weft forwards the packets of this node's pods"}
	case self.Down != "":
		now = condition{core.ConditionTrue, "WeftIsDown", self.Down}
	case was == "" || len(self.Forwards) > 0:
		now = condition{core.ConditionTrue, "WeftIsStarting", "weft does not forward with the Node's spec.podCIDRs yet"}
	}
	if now.status == was {
		return condition{}
	}
	return now
}

// samePrefixes compares in whatever order.
func samePrefixes(a []netip.Prefix, texts []string) bool {
	var b []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return false
		}
		b = append(b, p)
	}
	slices.SortFunc(b, netip.Prefix.Compare)
	return len(a) > 0 && slices.Equal(slices.SortedFunc(slices.Values(a), netip.Prefix.Compare), b)
}

func (t todo) nothing() bool { return t == todo{} }

func newTodo(own *core.Node, want map[string]string, self control.Self) (t todo) {
	changes := make(map[string]*string)
	for key, value := range want {
		switch {
		case holds(own, key, value):
		case value == "":
			changes[key] = nil
		default:
			changes[key] = &value
		}
	}
	t.annotations = annotationsPatch(changes)
	delete(changes, annotationAddresses)
	t.without = annotationsPatch(changes)
	t.condition = newCondition(own, self)
	return t
}

// annotationsPatch returns the merge patch that makes changes, empty if there are none.
func annotationsPatch(changes map[string]*string) string {
	if len(changes) == 0 {
		return ""
	}
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": changes}}) // strings only
	return string(patch)
}

// done is how it went to write a todo.
type done struct{ annotations, addresses, condition, event error }

func (s *Source) write(ctx context.Context, t todo) (d done) {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	api := s.currentAPI()
	if t.annotations != "" {
		s.writeAnnotations(ctx, api, t, &d)
	}
	if t.condition != (condition{}) {
		if _, err := api.Patch(ctx, s.Node, types.StrategicMergePatchType, t.condition.patch(time.Now()), meta.PatchOptions{}, "status"); err != nil {
			d.condition = fmt.Errorf("set the condition NetworkUnavailable of the Node %s to %s: %w", s.Node, t.condition.status, s.withRemedy(err))
		}
	}
	if t.event != "" {
		d.event = api.CreateEvent(ctx, s.newEvent(t.event, time.Now()))
	}
	if apierrors.IsUnauthorized(d.annotations) || apierrors.IsUnauthorized(d.condition) || apierrors.IsUnauthorized(d.event) {
		s.readCredentials()
	}
	return d
}

// writeAnnotations writes them without the further addresses if they are refused with these.
func (s *Source) writeAnnotations(ctx context.Context, api nodeAPI, t todo, d *done) {
	patch := func(text string) error {
		_, err := api.Patch(ctx, s.Node, types.MergePatchType, []byte(text), meta.PatchOptions{FieldManager: "weft"})
		return err
	}
	err := patch(t.annotations)
	if refused := apierrors.IsForbidden(err) || apierrors.IsInvalid(err); refused && t.without != t.annotations {
		d.addresses = fmt.Errorf("write this node's further addresses to the Node %s: %w; apply deploy/kubernetes/rights of this version", s.Node, err)
		err = nil
		if t.without != "" {
			err = patch(t.without)
		}
	}
	if err != nil {
		d.annotations = fmt.Errorf("write this node's annotations to the Node %s: %w", s.Node, s.withRemedy(err))
	}
}

func (d done) err() error { return errors.Join(d.annotations, d.addresses, d.condition, d.event) }

// patch is a strategic merge patch, which adds to the other conditions.
func (c condition) patch(now time.Time) []byte {
	type status struct {
		Conditions []core.NodeCondition `json:"conditions"`
	}
	at := meta.NewTime(now)
	patch, _ := json.Marshal(map[string]status{"status": {Conditions: []core.NodeCondition{{ // strings and times only
		Type: core.NodeNetworkUnavailable, Status: c.status, Reason: c.reason, Message: c.message,
		LastHeartbeatTime: at, LastTransitionTime: at,
	}}}})
	return patch
}
