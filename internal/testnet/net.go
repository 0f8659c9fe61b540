package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

// closeLimit bounds Close: killing is immediate, only a hung kernel takes longer.
const closeLimit = time.Minute

// Options say how to make a Net.
type Options struct {
	// Prefix begins the name of each namespace: lower-case words joined by hyphens,
	// like "weft-demo". Several Nets may use one prefix at the same time.
	Prefix string

	// BinDir holds the programs weftd and weft-cni. Nets without a Node need none.
	BinDir string

	// Detached processes outlive the process that made the Net, so that Keep can
	// leave them running. Otherwise the kernel kills them with it.
	Detached bool
}

// Net owns a set of namespaces with the processes and files that belong to them.
// Its methods may be called concurrently.
type Net struct {
	options Options
	claim   *claim

	mu         sync.Mutex
	namespaces map[string]*Namespace
	nodes      []*Node
	services   []*Service
	closed     bool

	finish   sync.Once
	finished error
}

// prefixPattern allows no digit, so that a prefix followed by a slot number can't
// be the beginning of another Net's names.
var prefixPattern = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

var errClosed = errors.New("the testnet is closed")

// New claims a name for a Net, after it removed what dead owners of the same
// prefix left behind, except what they left by Keep. The Net is closed when ctx
// ends; a caller that wants to see the outcome calls Close as well.
func New(ctx context.Context, options Options) (*Net, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root: run this with sudo")
	}
	if !prefixPattern.MatchString(options.Prefix) {
		return nil, fmt.Errorf("prefix %q: want lower-case words joined by hyphens", options.Prefix)
	}
	if options.BinDir != "" {
		// Programs are started from other working directories too.
		dir, err := filepath.Abs(options.BinDir)
		if err != nil {
			return nil, fmt.Errorf("find the programs' folder: %w", err)
		}
		options.BinDir = dir
	}
	claim, err := newClaim(ctx, options.Prefix)
	if err != nil {
		return nil, fmt.Errorf("claim a place for testnet %s: %w", options.Prefix, err)
	}
	n := &Net{options: options, claim: claim, namespaces: make(map[string]*Namespace)}
	context.AfterFunc(ctx, func() { _ = n.Close() })
	return n, nil
}

// Name is what the name of each of the Net's namespaces begins with, before a hyphen.
func (n *Net) Name() string { return n.claim.name() }

// Dir is the folder for files that go away with the Net.
func (n *Net) Dir() string { return n.claim.dir }

// AddNamespace makes a namespace with its loopback up. On the host it is called
// Name()-name.
func (n *Net) AddNamespace(ctx context.Context, name string) (*Namespace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	fullName := n.Name() + "-" + name
	if _, taken := n.namespaces[fullName]; taken {
		return nil, fmt.Errorf("namespace %s exists already", fullName)
	}
	ns, err := newNamespace(ctx, fullName, n)
	if err != nil {
		return nil, fmt.Errorf("add namespace %s: %w", fullName, err)
	}
	n.namespaces[fullName] = ns
	return ns, nil
}

// Nodes returns the nodes in the order in which they were added.
func (n *Net) Nodes() []*Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.nodes)
}

// AddService is a program that runs until it is stopped, and appends what it writes to a
// file. command prepares each run, and ready is asked until it returns nil.
func (n *Net) AddService(title, logFile string, ready func(context.Context) error, command func() (*exec.Cmd, error)) *Service {
	s := &Service{title: title, logFile: logFile, owner: n, command: command, ready: ready}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services = append(n.services, s)
	return s
}

// removeNamespace kills what runs in ns and removes it.
func (n *Net) removeNamespace(ctx context.Context, ns *Namespace) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.namespaces[ns.name] != ns {
		return nil
	}
	delete(n.namespaces, ns.name)
	return reap(ctx, []string{ns.name}, noProcess)
}

// Keep leaves everything running when this process ends, until Sweep is called
// with the same prefix. It makes sense for a Net with the option Detached only.
func (n *Net) Keep() error {
	if !n.options.Detached {
		return errors.New("keep the testnet: its processes are not detached and die with this one")
	}
	kept := false
	n.finish.Do(func() { kept, n.finished = true, n.claim.keep() })
	if !kept {
		return errClosed
	}
	return n.finished
}

// Close kills every process in the Net's namespaces, and removes the namespaces
// and the Net's folder. It may be called more than once, and does nothing after Keep.
func (n *Net) Close() error {
	n.finish.Do(func() { n.finished = n.remove() })
	return n.finished
}

func (n *Net) remove() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()

	// The caller's context is often what ended; the clean-up must happen nevertheless.
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if err := n.claim.remove(ctx); err != nil {
		return fmt.Errorf("close testnet %s: %w", n.Name(), err)
	}
	return nil
}

// Leftovers lists what still exists of the Net: its namespaces, the processes that
// were started in them, wherever they are now, their cgroups, and its folder. After Close it must
// be empty.
func (n *Net) Leftovers(ctx context.Context) ([]string, error) { return n.claim.leftovers(ctx) }
