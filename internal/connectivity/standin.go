package connectivity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/echo"
)

// namespaces is where ip-netns(8) has network namespaces by name, and prefix what the names of the
// stand-ins' begin with. The process that made one follows.
const (
	namespaces = "/run/netns"
	prefix     = "weft-check-"

	standInLink = "eth0"
)

// standIn is a network namespace that the CNI plugins wired, like a pod's.
type standIn struct {
	name    string
	addrs   []netip.Addr
	network *network
}

// network calls the CNI plugins by the conflist that weftd wrote.
type network struct {
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func loadNetwork(conflist, binDir, cacheDir string) (*network, error) {
	list, err := libcni.ConfListFromFile(conflist)
	if err != nil {
		return nil, fmt.Errorf("read the conflist %s: %w", conflist, err)
	}
	return &network{libcni.NewCNIConfigWithCacheDir([]string{binDir}, cacheDir, nil), list}, nil
}

func path(name string) string { return filepath.Join(namespaces, name) }

func attachment(name string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: name, NetNS: path(name), IfName: standInLink,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "weft"}, {"K8S_POD_NAME", name}}}
}

// add makes a stand-in, of which there may be several with other suffixes.
func (n *network) add(ctx context.Context, suffix string) (*standIn, error) {
	s := &standIn{name: prefix + strconv.Itoa(os.Getpid()) + "-" + suffix, network: n}
	if err := makeNamespace(s.name); err != nil {
		return nil, err
	}
	result, err := n.cni.AddNetworkList(ctx, n.list, attachment(s.name))
	if err == nil {
		s.addrs, err = addresses(result)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// makeNamespace makes a network namespace with a name.
func makeNamespace(name string) error {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in the namespace now, ends
		_, err := netns.NewNamed(name)
		made <- err
	}()
	if err := <-made; err != nil {
		return fmt.Errorf("make the network namespace %s: %w", name, err)
	}
	return nil
}

func addresses(result types.Result) ([]netip.Addr, error) {
	r, err := types100.GetResult(result)
	if err != nil {
		return nil, fmt.Errorf("read the result of the CNI plugins: %w", err)
	}
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// remove removes the stand-in, also if it is half-made.
func (s *standIn) remove() error { return s.network.remove(s.name) }

func (n *network) remove(name string) error {
	err := n.cni.DelNetworkList(context.Background(), n.list, attachment(name))
	if err != nil {
		err = fmt.Errorf("release the addresses of %s: %w", name, err)
	}
	if removed := netns.DeleteNamed(name); removed != nil && !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("remove the network namespace %s: %w", name, removed))
	}
	return err
}

// sweep removes what tests have left that were killed.
func (n *network) sweep() error {
	entries, err := os.ReadDir(namespaces)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for what an earlier test left: %w", err)
	}
	var errs []error
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix)
		pid, _, _ := strings.Cut(rest, "-")
		if id, err := strconv.Atoi(pid); !ours || err != nil || unix.Kill(id, 0) == nil {
			continue
		}
		errs = append(errs, n.remove(e.Name()))
	}
	return errors.Join(errs...)
}

// do runs f on a thread that is in the stand-in: sockets that f opens stay there.
func (s *standIn) do(f func() error) error {
	return ns.WithNetNSPath(path(s.name), func(ns.NetNS) error { return f() })
}

// dial connects from within the stand-in, to an address in digits.
func (s *standIn) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = s.do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// server is an echo in a stand-in.
type server struct {
	port uint16
	stop func()
}

// serve answers in the stand-in until stop is called.
func (s *standIn) serve(ctx context.Context) (*server, error) {
	var answering *echo.Server
	err := s.do(func() (err error) {
		answering, err = echo.Listen(ctx, "", 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", s.name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		_ = answering.Serve(ctx) // a client reports what does not work
		close(ended)
	}()
	return &server{answering.Port(), func() {
		cancel()
		<-ended
	}}, nil
}
