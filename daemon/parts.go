package daemon

import (
	"errors"

	"weft/internal/nftable"
	"weft/internal/status"
)

// errNotYet is why a part is not as it must be before weftd comes to it.
var errNotYet = errors.New(status.NotYet)

// text is an error's, or "".
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// guardStands returns why the guard table is not the one that weftd has made, or nil.
func (d *daemon) guardStands() error {
	stands, err := d.host.GuardStands()
	switch {
	case err != nil, stands:
		return err
	case d.host.Guard() == (nftable.Identity{}):
		return errNotYet
	}
	return errors.New("it is gone, or another program's; weftd restores it")
}
