package kubernetes

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	events "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/control"
)

const (
	// eventNamespace is where Kubernetes keeps events of what has no namespace.
	eventNamespace = meta.NamespaceDefault

	// mostNote is how long an event's note may be, in bytes. The API server takes 1,024.
	mostNote = 1000
)

// event returns what the next event must say, or nothing: each change of the stranded pods is
// one event.
func (r *run) event(self control.Self) string {
	note := strandedNote(self.Stranded)
	if note == r.published {
		return ""
	}
	if note == "" { // all are gone: those of the future are news
		r.published = ""
	}
	return note
}

// finishEvent takes in how it went to publish an event. One that the API server refuses is
// given up: `weft status` and the log have the same.
func (r *run) finishEvent(note string, err error) {
	if note != "" && (err == nil || apierrors.IsForbidden(err) || apierrors.IsInvalid(err)) {
		r.published = note
	}
}

// strandedNote names as many pods as there is room for.
func strandedNote(pods []string) string {
	if len(pods) == 0 {
		return ""
	}
	const remedy = "No other node reaches these pods, whose addresses are outside the Node's pod CIDRs; delete them: "
	named := 1
	for length := len(remedy) + len(pods[0]); named < len(pods); named++ {
		if length += len(", ") + len(pods[named]); length > mostNote-len(" and 10000 more") {
			break
		}
	}
	note := remedy + strings.Join(pods[:named], ", ")
	if more := len(pods) - named; more > 0 {
		note += fmt.Sprintf(" and %d more", more)
	}
	return note[:min(len(note), mostNote)]
}

// newEvent returns an event of this node's Node.
func (s *Source) newEvent(note string, now time.Time) []byte {
	text, _ := json.Marshal(events.Event{ // strings and times only
		TypeMeta: meta.TypeMeta{APIVersion: events.SchemeGroupVersion.String(), Kind: "Event"},
		ObjectMeta: meta.ObjectMeta{
			Name:      fmt.Sprintf("%s.%x", s.Node, now.UnixNano()),
			Namespace: eventNamespace,
		},
		EventTime:           meta.NewMicroTime(now),
		ReportingController: "weft.network/weftd",
		ReportingInstance:   s.Node[:min(len(s.Node), 128)],
		Action:              "DeletePods",
		Reason:              "StrandedPods",
		// As kubelet does: `kubectl describe node` looks for the name in place of the UID.
		Regarding: core.ObjectReference{APIVersion: "v1", Kind: "Node", Name: s.Node, UID: types.UID(s.Node)},
		Note:      note,
		Type:      core.EventTypeWarning,
	})
	return text
}
