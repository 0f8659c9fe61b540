package cniplugin

import (
	"errors"
	"io/fs"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"weft/cniplugin/wiring"
	"weft/ipam"
)

// The plugin's own error codes; the specification leaves those from 100 to plugins.
const (
	// CodeCorrupt says that the lease file is damaged.
	CodeCorrupt uint = 101 + iota
	// CodeAttached says that ADD was repeated for an interface that is complete.
	CodeAttached
	// CodeIncomplete says that CHECK found something missing.
	CodeIncomplete
	// CodeWiring says that the kernel refused a link, an address or a route.
	CodeWiring
	// CodeRefused says that an address can't be had that was asked for by name.
	CodeRefused
	// CodeStillRuns says that GC kept what is not in the list but visibly runs.
	CodeStillRuns
)

// codedError is an error whose CNI code is known where it arises.
type codedError struct {
	code uint
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func withCode(code uint, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, err}
}

// cniError turns err into what the specification asks a plugin to print.
func cniError(err error) error {
	if err == nil {
		return nil
	}
	return types.NewError(codeOf(err), err.Error(), "")
}

func codeOf(err error) uint {
	var (
		coded     *codedError
		namespace wiring.NamespaceError
		path      *fs.PathError
		link      *os.LinkError
		errno     unix.Errno
	)
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &namespace):
		return types.ErrInvalidEnvironmentVariables
	case errors.Is(err, ipam.ErrLocked), errors.Is(err, ipam.ErrExhausted): // another pod may go
		return types.ErrTryAgainLater
	case errors.Is(err, ipam.ErrRefused):
		return CodeRefused
	case errors.Is(err, ipam.ErrCorrupt):
		return CodeCorrupt
	case errors.As(err, &path), errors.As(err, &link), errors.As(err, &errno):
		return types.ErrIOFailure
	default:
		return types.ErrInternal
	}
}
