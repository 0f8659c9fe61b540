// Package restart measures what pods notice when the weftd of their node is replaced: by a hand-over,
// by a stop and a start, and after a crash. Beside a run in which nothing is restarted, since a busy
// machine loses packets by itself.
package restart

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/testnet"
)

// Kind is how weftd is replaced.
type Kind struct {
	Name    string
	replace func(ctx context.Context, n *testnet.Node) error // nil: it is not
}

// Kinds are all.
func Kinds() []Kind {
	return []Kind{
		{"none", nil},
		{"hand-over", func(ctx context.Context, n *testnet.Node) error { return n.TakeOver(ctx, "--takeover") }},
		{"stop, start", func(ctx context.Context, n *testnet.Node) error {
			return errors.Join(n.Stop(ctx), n.Start(ctx))
		}},
		{"kill -9, start", func(ctx context.Context, n *testnet.Node) error {
			n.Kill()
			return n.Start(ctx)
		}},
	}
}

// Options say what is measured.
type Options struct {
	BinDir string
	Sealed bool
	Time   time.Duration // of each load, in whole seconds
	Rate   int           // UDP packets a second
}

// pause is the time between two restarts.
const pause = 2 * time.Second

// Result is what pods have noticed of restarts of one kind.
type Result struct {
	Kind     string
	Restarts int

	Pings, PingsLost int     // one each 10 ms
	UDP, UDPLost     float64 // packets of 64 bytes
	TCPTimeouts      int     // retransmission timeouts of the sender's kernel
	Gigabits         float64 // of TCP a second

	// Gap is the longest time without an answer to a ping, divided by the number of restarts in a
	// run that lost any: what was lost in a row, times 10 ms.
	Gap time.Duration
}

// Run measures all kinds by turns, and passes each result on. weftd is replaced on the sending node.
func Run(ctx context.Context, o Options, report func(Result)) (err error) {
	net, err := testnet.New(ctx, testnet.Options{Prefix: "restart", BinDir: o.BinDir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	cluster, err := net.NewCluster(ctx, testnet.ClusterOptions{Nodes: 2, Sealed: o.Sealed})
	if err != nil {
		return err
	}
	if err := cluster.Start(ctx); err != nil {
		return err
	}
	node := cluster.Nodes()[0]
	var pods []*testnet.Pod
	for i, n := range cluster.Nodes() {
		pod, err := n.AddPod(ctx, fmt.Sprintf("pod%d", i+1))
		if err != nil {
			return err
		}
		pods = append(pods, pod)
	}
	for _, k := range Kinds() {
		// Each load alone: together, they are more than two processors can carry.
		r := Result{Kind: k.Name}
		for _, load := range []func(context.Context, Options, *testnet.Pod, *testnet.Pod, *Result) error{pings, udp, tcp} {
			n, err := o.under(ctx, k, node, func(ctx context.Context) error { return load(ctx, o, pods[0], pods[1], &r) })
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", k.Name, err, node.LogTail(10))
			}
			r.Restarts += n
		}
		report(r)
	}
	return nil
}

// under replaces weftd again and again while the load lasts, and returns how often.
func (o Options) under(ctx context.Context, k Kind, node *testnet.Node, load func(context.Context) error) (n int, err error) {
	group, ctx := errgroup.WithContext(ctx)
	ended := make(chan struct{})
	group.Go(func() error {
		defer close(ended)
		return load(ctx)
	})
	group.Go(func() error {
		for {
			select {
			case <-ended:
				return nil
			case <-time.After(pause):
			}
			if k.replace == nil {
				continue
			}
			if err := k.replace(ctx, node); err != nil {
				return err
			}
			n++
		}
	})
	return n, group.Wait()
}

func target(to *testnet.Pod) netip.Addr { return to.Addrs[0] }

var pinged = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// pings sends one each 10 ms, and looks which got no answer.
func pings(ctx context.Context, o Options, from, to *testnet.Pod, r *Result) error {
	const each = 10 * time.Millisecond
	n := int(o.Time / each)
	out, err := from.Exec(ctx, "sh", "-c", fmt.Sprintf("ping -n -O -i 0.01 -c %d -W 2 %s | grep -E 'icmp_seq|transmitted' | grep -v 'no answer' || true", n, target(to)))
	if err != nil {
		return err
	}
	counts := pinged.FindStringSubmatch(out)
	if counts == nil {
		return fmt.Errorf("ping says %q", out)
	}
	sent, _ := strconv.Atoi(counts[1])
	received, _ := strconv.Atoi(counts[2])
	r.Pings, r.PingsLost = sent, sent-received
	last := 0
	for _, seq := range regexp.MustCompile(`icmp_seq=(\d+)`).FindAllStringSubmatch(out, -1) {
		at, _ := strconv.Atoi(seq[1])
		if missing := at - last - 1; missing > 0 {
			r.Gap = max(r.Gap, time.Duration(missing)*each)
		}
		last = max(last, at)
	}
	return nil
}

// udp sends small packets at a rate. What waits in the queues during a hand-over arrives at once: 200
// packets after 4 ms, of which a socket with room for 212,992 bytes, the default, may hold fewer.
func udp(ctx context.Context, o Options, from, to *testnet.Pod, r *Result) error {
	const size = 64
	report, err := iperf(ctx, o, from, to, "--udp", "--window", "1M", "--length", strconv.Itoa(size), "--bitrate", strconv.Itoa(o.Rate*size*8))
	if err != nil {
		return err
	}
	r.UDP, r.UDPLost = report.End.Sum.Packets, report.End.Sum.LostPackets
	return nil
}

// tcp sends as fast as it can.
func tcp(ctx context.Context, o Options, from, to *testnet.Pod, r *Result) error {
	before, err := timeouts(ctx, from)
	if err != nil {
		return err
	}
	report, err := iperf(ctx, o, from, to)
	if err != nil {
		return err
	}
	after, err := timeouts(ctx, from)
	r.TCPTimeouts, r.Gigabits = after-before, report.End.Received.BitsPerSecond/1e9
	return err
}

func iperf(ctx context.Context, o Options, from, to *testnet.Pod, args ...string) (*testnet.IperfReport, error) {
	server, err := to.StartIperf(ctx)
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	return from.Iperf(ctx, target(to), int(o.Time.Seconds()), args...)
}

// timeouts returns how many retransmission timeouts a pod's kernel has had (proc_pid_net(5), netstat).
func timeouts(ctx context.Context, pod *testnet.Pod) (int, error) {
	out, err := pod.Exec(ctx, "nstat", "-asz", "TcpExtTCPTimeouts")
	if err != nil {
		return 0, err
	}
	count := regexp.MustCompile(`TcpExtTCPTimeouts\s+(\d+)`).FindStringSubmatch(out)
	if count == nil {
		return 0, fmt.Errorf("nstat says %q", out)
	}
	return strconv.Atoi(count[1])
}
