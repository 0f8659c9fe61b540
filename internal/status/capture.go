package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// CaptureFilter says which packets to capture. An empty field allows all.
type CaptureFilter struct {
	// Hosts has packets captured that come from an address in one of these prefixes, or go there.
	Hosts []netip.Prefix `json:"hosts,omitempty"`

	// Peer is the node that they are for, or come from.
	Peer string `json:"peer,omitempty"`

	// Dropped has only packets captured that weftd drops.
	Dropped bool `json:"dropped,omitempty"`

	// SnapLen is how many bytes of each are captured at the most, at least 1.
	SnapLen int `json:"snapLen"`
}

// CapturedPacket is a pod's packet as a lane met it, before encapsulation or after it was removed.
type CapturedPacket struct {
	Time      time.Time `json:"time"`
	Lane      int       `json:"lane"`
	Direction string    `json:"direction"`      // outbound or inbound
	Peer      string    `json:"peer,omitempty"` // the node that it is for, or comes from
	Drop      string    `json:"drop,omitempty"` // why weftd dropped it; empty if it did not
	Length    int       `json:"length"`         // bytes

	// SegmentSize is the size in bytes of the payload of each segment into which a super-packet
	// is cut later.
	SegmentSize int    `json:"segmentSize,omitempty"`
	Data        []byte `json:"data"`

	// Lost counts packets since the one before that came too fast to be captured.
	Lost uint64 `json:"lost,omitempty"`
}

// Capture passes each packet that the filter allows to each, until ctx is done or each fails. An error
// before the first packet is a reason not even to try.
type Capture func(ctx context.Context, filter CaptureFilter, each func(CapturedPacket) error) error

// serve answers with a line for each packet. It sends the header at once: the client then knows that
// the capture runs.
func (f Capture) serve(w http.ResponseWriter, r *http.Request) {
	const mostBytes = 64 << 10
	var filter CaptureFilter
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBytes))
	decoder.DisallowUnknownFields() // a misspelt one would mean all packets
	if err := decoder.Decode(&filter); err != nil || filter.SnapLen < 1 {
		http.Error(w, fmt.Sprintf("read the filter: snapLen must be at least 1, %v", err), http.StatusBadRequest)
		return
	}
	out, begun := json.NewEncoder(w), false
	flush := http.NewResponseController(w).Flush
	err := f(r.Context(), filter, func(p CapturedPacket) error {
		begun = true
		if p.Direction != "" { // otherwise it only says that the capture runs
			if err := out.Encode(p); err != nil {
				return err
			}
		}
		return flush()
	})
	if err != nil && !begun {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// CapturePackets has the daemon behind the socket at path capture packets, and passes each to each until
// ctx is done or each fails; it then returns nil, or what each returned. It calls began once the capture
// runs.
func CapturePackets(ctx context.Context, path string, filter CaptureFilter, began func(), each func(CapturedPacket) error) error {
	body, err := json.Marshal(filter)
	if err != nil {
		return fmt.Errorf("ask weftd: %w", err)
	}
	answer, err := send(ctx, path, http.MethodPost, "/v1/capture", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Close()
	began()
	for packets := json.NewDecoder(answer); ; {
		var p CapturedPacket
		switch err := packets.Decode(&p); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("weftd has ended the capture: it stopped, or another weftd was to take over; look at its log, and try again")
		case err != nil:
			return fmt.Errorf("read captured packets: %w", err)
		}
		if err := each(p); err != nil {
			return err
		}
	}
}
