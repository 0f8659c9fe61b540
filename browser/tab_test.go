package browser

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"weft/internal/testnet"
)

// The widths of a phone and of a desk's screen, in CSS pixels.
const (
	phone = 360
	desk  = 1280
)

// tab is a page in the browser. Whatever its console complains about, and each request to elsewhere,
// fails the test.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// open loads a page in a tab of its own.
func open(t *testing.T, address string, before ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 4*testnet.WaitLimit)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx}
	origin, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	err = chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err != nil || u.Host != origin.Host {
				p.complain("request to %s", e.Request.URL)
			}
		case *runtime.EventConsoleAPICalled:
			p.complain("console: %s %+v", e.Type, e.Args)
		case *runtime.EventExceptionThrown:
			p.complain("exception: %+v", *e.ExceptionDetails)
		case *log.EventEntryAdded:
			p.complain("log: %s %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, runtime.Enable, cdp.Empty{})
	p.do(before...)
	p.do(chromedp.Navigate(address), chromedp.WaitReady("#main"))
	return p
}

func (p *tab) complain(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.complaints = append(p.complaints, fmt.Sprintf(format, args...))
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Steps(actions...)); err != nil {
		p.t.Fatal(err)
	}
}

// call has the browser carry out a command of its protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	result, err := chromedp.Call(p.ctx, command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// text is what a reader sees of an element, in one line.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return p.evaluate(`(document.querySelector(` + "`" + selector + "`" + `) ?? {innerText: ""}).innerText.replace(/\s+/g, " ")`)
}

func (p *tab) evaluate(script string) string {
	p.t.Helper()
	result, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](script))
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// expect waits until an element's text has all of the words.
func (p *tab) expect(selector string, words ...string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%s to show %q", selector, words), func() error {
		text := p.text(selector)
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("no %q in %q", w, text)
			}
		}
		return nil
	})
}

// at gives the tab a size and a colour scheme.
func (p *tab) at(width int64, scheme string) {
	p.t.Helper()
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width == phone})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	if moving := p.evaluate(`String(document.getAnimations().length)`); moving != "0" {
		p.t.Errorf("%s animations, though less motion is preferred", moving)
	}
}

// expectSound checks what must hold whatever the page shows, on each kind of screen.
func (p *tab) expectSound() {
	p.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{phone, 800, desk} {
			p.at(width, scheme)
			p.expectNothing(fmt.Sprintf("too wide at %d pixels", width), tooWide)
			p.expectNothing(fmt.Sprintf("too faint, %s, at %d pixels", scheme, width), tooFaint)
		}
	}
	p.expectNothing("wrong headings", wrongHeadings)
	p.expectNothing("not named", namesTwice)
	p.expectAccessible()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.complaints {
		p.t.Error(c)
	}
}

// expectNothing runs a script that returns a line for each thing that is wrong.
func (p *tab) expectNothing(what, script string) {
	p.t.Helper()
	if found := p.evaluate(script); found != "" {
		p.t.Errorf("%s:\n%s", what, found)
	}
}

// expectAccessible looks at the page as a screen reader does.
func (p *tab) expectAccessible() {
	p.t.Helper()
	seen := map[string]int{}
	for _, n := range call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := valueOf(n.Role), valueOf(n.Name)
		seen[role]++
		switch role {
		case "link", "button", "textbox", "heading", "region", "navigation", "table", "image", "img", "columnheader", "rowheader":
			if name == "" {
				p.t.Errorf("a %s has no name", role)
			}
		}
	}
	for _, role := range []string{"banner", "main", "contentinfo", "navigation", "heading", "status"} {
		if seen[role] == 0 {
			p.t.Errorf("there is no %s; there are %v", role, seen)
		}
	}
}

func valueOf(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}
