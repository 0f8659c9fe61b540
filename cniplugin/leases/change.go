package leases

import (
	"fmt"

	"weft/ipam"
)

// Change is what was done about an attachment.
type Change struct {
	// Action is what was done.
	Action Action `json:"action"`
	Found  `json:"attachment"`
	// Why names the reason, for people.
	Why string `json:"why"`
}

// Action is what Collect, Reconcile or Release did.
type Action string

// The actions. An attachment that was freed has neither veth nor lease any more.
const (
	Freed   Action = "freed"
	Adopted Action = "adopted" // a lease was recorded for a pod that had none
	Rebuilt Action = "rebuilt" // the lease file, and not one attachment
	Rewired Action = "rewired" // addresses and routes that another program took were brought back
	Kept    Action = "kept"    // only an operator, a DEL or a GC can repair it
)

// String is one line for people.
func (c Change) String() string {
	if c.Attachment == (ipam.Attachment{}) && c.Veth == "" { // not of one attachment
		return c.Why
	}
	who := c.Attachment.String()
	if c.Attachment == (ipam.Attachment{}) {
		who = c.Veth
	}
	if c.Pod != "" {
		who += " (pod " + c.Pod + ")"
	}
	for _, a := range c.Addresses {
		who += " " + a.String()
	}
	return fmt.Sprintf("%s %s: %s", c.Action, who, c.Why)
}
