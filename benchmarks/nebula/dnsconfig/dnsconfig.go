// Package dnsconfig stands in for github.com/DefinedNet/dnsconfig, which is not available
// everywhere. Nebula configures the resolver of macOS and Windows with it; on Linux it does
// nothing.
package dnsconfig

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
)

// ErrConfigurationDeclined is what Set returns.
var (
	ErrConfigurationDeclined = errors.New("host DNS is not supported")
	ErrInterfaceRequired     = errors.New("an interface is required")
)

// BackendKind is how a Manager would change the host.
type BackendKind int

// BackendAuto leaves it to the Manager.
const BackendAuto BackendKind = 0

// Options are those of a Manager.
type Options struct {
	Identity      string
	InterfaceName string
	Logger        *slog.Logger
	ForceBackend  BackendKind
}

// ValidateIdentity takes every name: none is ever used.
func ValidateIdentity(string) error { return nil }

// Config is the configuration of a host's resolver.
type Config struct {
	Nameservers   []netip.Addr
	SearchDomains []string
	MatchDomains  []string
}

// Validate takes every Config.
func (Config) Validate() error { return nil }

// IsSplit says whether only some names would be looked up by the name servers.
func (c Config) IsSplit() bool { return len(c.MatchDomains) > 0 }

// Manager changes nothing.
type Manager struct{}

// New returns a Manager.
func New(context.Context, Options) (*Manager, error) { return new(Manager), nil }

// Set refuses.
func (*Manager) Set(Config) error { return ErrConfigurationDeclined }

// Clear has nothing to clear.
func (*Manager) Clear() error { return nil }

// Close has nothing to close.
func (*Manager) Close() error { return nil }
