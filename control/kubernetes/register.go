package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/control"
	"weft/encap"
	"weft/internal/advertise"
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
	want := map[string]string{annotationEndpoint: endpoint.String(), annotationKey: ""}
	if self.Key != (encap.Fingerprint{}) {
		want[annotationKey] = self.Key.String()
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
	for _, family := range s.Families {
		for _, a := range own.Status.Addresses {
			if a.Type != core.NodeInternalIP {
				continue
			}
			if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Zone() == "" && addr.Unmap().Is4() == (family == advertise.IPv4) {
				return netip.AddrPortFrom(addr.Unmap(), self.Port()), nil
			}
		}
	}
	var names []string
	for _, family := range s.Families {
		names = append(names, family.String())
	}
	return netip.AddrPort{}, fmt.Errorf("it has no InternalIP of %s; write the address under the configuration's key advertise, or as the annotation %s",
		strings.Join(names, " or "), annotationOverride)
}

// registered says whether weft's own annotations are all as wanted.
func registered(own *core.Node, want map[string]string) bool {
	for key, value := range want {
		if strings.HasPrefix(key, annotationPrefix) && !holds(own, key, value) {
			return false
		}
	}
	return true
}

func holds(own *core.Node, key, value string) bool {
	found, ok := own.Annotations[key]
	return found == value && ok == (value != "")
}

// todo is what must be written: a merge patch (RFC 7386) of the annotations, empty if they
// are right, and whether the condition NetworkUnavailable must become False.
type todo struct {
	annotations string
	condition   bool
}

func (t todo) nothing() bool { return t == todo{} }

func newTodo(own *core.Node, want map[string]string, ready bool) (t todo) {
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
	if len(changes) > 0 {
		patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": changes}}) // strings only
		t.annotations = string(patch)
	}
	if ready {
		t.condition = len(own.Status.Conditions) == 0 || own.Status.Conditions[0].Status != core.ConditionFalse
	}
	return t
}

// done is how it went to write a todo.
type done struct{ annotations, condition error }

func (s *Source) write(ctx context.Context, t todo) (d done) {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if t.annotations != "" {
		if _, err := s.api.Patch(ctx, s.Node, types.MergePatchType, []byte(t.annotations), meta.PatchOptions{FieldManager: "weft"}); err != nil {
			d.annotations = fmt.Errorf("write this node's annotations to the Node %s: %w", s.Node, withRemedy(err))
		}
	}
	if t.condition {
		if _, err := s.api.Patch(ctx, s.Node, types.StrategicMergePatchType, networkAvailable(time.Now()), meta.PatchOptions{}, "status"); err != nil {
			d.condition = fmt.Errorf("set the condition NetworkUnavailable of the Node %s to False: %w", s.Node, withRemedy(err))
		}
	}
	return d
}

func (d done) err() error { return errors.Join(d.annotations, d.condition) }

// networkAvailable is a strategic merge patch, which adds to the other conditions.
func networkAvailable(now time.Time) []byte {
	type status struct {
		Conditions []core.NodeCondition `json:"conditions"`
	}
	at := meta.NewTime(now)
	patch, _ := json.Marshal(map[string]status{"status": {Conditions: []core.NodeCondition{{ // strings and times only
		Type: core.NodeNetworkUnavailable, Status: core.ConditionFalse,
		Reason: "WeftIsUp", Message: "weft forwards the packets of this node's pods",
		LastHeartbeatTime: at, LastTransitionTime: at,
	}}}})
	return patch
}
