package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"weft/internal/testnet"
)

// TestPage breaks a cluster of four nodes while the page of the first one is open.
func TestPage(t *testing.T) {
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 4, Sealed: true, Wire: testnet.Wire{Offloads: testnet.Bare},
		Configure: func(weft map[string]any) {
			// All addresses but two.
			weft["ipam"] = map[string]any{"reserved": []string{"10.244.1.4/30", "10.244.1.8/29", "10.244.1.16/28", "10.244.1.32/27", "10.244.1.64/26", "10.244.1.128/25"}}
		}})
	nodes := cluster.Nodes()
	node1 := nodes[0]
	pod := addPod(t, node1, "a")
	for i, n := range nodes[1:] {
		other := addPod(t, n, fmt.Sprintf("b%d", i))
		converse(t, pod, other, 1<<(8*i))
	}
	p := open(t, address(t, node1))

	t.Run("healthy", func(t *testing.T) {
		p.t = t
		p.expect("header", "node1", "Ready nothing is wrong", "it updates itself")
		for _, n := range nodes[1:] {
			p.expect(".mesh", n.Entry().Name+" up")
		}
		p.expect(".mesh", "↑", "b/s", "RTT", "loss 0 %", "MTU 1,440")
		p.expect(".peers tbody tr", "up")
		p.expect(".figures", "3 up")
		p.expect(".pool", "1 of 2 leased")
		p.expect(".parts", "Guard table installed", "Conflist written", "up to date")
		p.expect(".events", "data keys agreed node2", "forwarding")
		p.expectSound()
		p.screenshots("healthy", onDesk...)
	})
	t.Run("keyboard", func(t *testing.T) {
		p.t = t
		p.do(chromedp.KeyEvent("\t"))
		if focused := p.evaluate(`document.activeElement.textContent + " " + getComputedStyle(document.activeElement).outlineStyle`); focused != "Skip to the content solid" {
			t.Errorf("the first that the key Tab reaches: %s", focused)
		}
	})
	t.Run("without script", func(t *testing.T) {
		still := open(t, address(t, node1), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
			return err
		}))
		still.expect("header", "Ready", "reload the page")
		still.expect(".mesh", "node2")
	})
	t.Run("broken", func(t *testing.T) {
		p.t = t
		if err := nodes[3].Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		blackHole(t, nodes[2], 1300)
		addPod(t, node1, "last")
		if _, err := node1.AddPod(t.Context(), "one-too-many"); err == nil {
			t.Fatal("there is an address for one more pod")
		}
		forge(t, pod)
		p.expect(".badge", "Degraded")
		p.expect(".problems", "peer node4 is unreachable", "pool_exhausted", "path_mtu", "spoofed_by_pod", "What to do:")
		p.expect(".mesh li", "node4 unreachable")
		p.expect(".mesh", "node3", "MTU 1,240")
		p.expect(".peers tbody tr", "node4", "unreachable")
		p.expect(".drops", "spoofed_by_pod guard")
		p.expect(".pool", "2 of 2 leased")
		p.expect(".events", "peer unreachable node4", "guard drops packets spoofed_by_pod")
		p.expectSound()
		p.screenshots("broken", append(onDesk, onPhone)...)
	})
	t.Run("weftd gone", func(t *testing.T) {
		p.t = t
		node1.Kill()
		p.expect("#stale", "weftd does not answer")
		if err := node1.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the page to go on", func() error {
			if text := p.text("#stale:not([hidden])"); text != "" {
				return fmt.Errorf("it shows %q", text)
			}
			return nil
		})
		p.expect("header", "node1")
	})
}

// screen is one on which README and docs show the page.
type screen struct {
	suffix, scheme string
	width          int64
}

var (
	onDesk  = []screen{{"", "light", 1120}, {"-dark", "dark", 1120}}
	onPhone = screen{"-phone", "light", phone}
)

// screenshots writes the page as README and docs show it, if that is asked for.
func (p *tab) screenshots(name string, screens ...screen) {
	p.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	const height = 1400
	for _, s := range screens {
		p.at(s.width, s.scheme)
		p.evaluate(`document.activeElement.blur(); scrollTo(0, 0); ""`)
		beyond := true
		picture := call(p, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &beyond,
			Clip: &page.Viewport{Width: float64(s.width), Height: height, Scale: 1}}).Data
		small, err := reduce(picture)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+s.suffix+".png"), small, 0o644)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
}
