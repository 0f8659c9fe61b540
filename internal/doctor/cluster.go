package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"weft/control/sources"
	"weft/internal/config"
	"weft/internal/nodekey"
	"weft/internal/status"
	"weft/internal/warning"
)

// checkTrust looks whether others can change what weftd believes.
func checkTrust(_ context.Context, h *host) []Finding {
	if err := sources.CheckFiles(h.ConfigPath, h.Config); err != nil {
		return of(Failed, err.Error())
	}
	return ok("only root and weftd's user can change the configuration, and the files that it names")
}

func checkNodeKey(_ context.Context, h *host) []Finding {
	if h.Config.Encapsulation != config.EncapsulationSealed {
		return skipped("%s needs no key", h.Config.Encapsulation)
	}
	if _, err := nodekey.Load(h.Config.KeyFile); err != nil {
		return of(Failed, err.Error())
	}
	return ok("only its owner can read %s", h.Config.KeyFile)
}

func checkSecrets(_ context.Context, h *host) []Finding {
	return h.sourceWarnings("secret_readable", "only its owner can read each secret that the configuration names")
}

func checkClear(_ context.Context, h *host) []Finding {
	return h.sourceWarnings("etcd_in_clear", "the control source is this host's, or its connection is encrypted")
}

func (h *host) sourceWarnings(code, right string) []Finding {
	all := slices.DeleteFunc(sources.Warnings(h.Config), func(w warning.Warning) bool { return w.Code != code })
	return orOK(Warning, all, "%s", right)
}

func checkSource(_ context.Context, h *host) []Finding {
	l := h.list()
	if l.loadErr != nil {
		found := of(Failed, l.loadErr.Error())
		if last := &found[len(found)-1]; last.Remedy == "" && h.registers() {
			last.Remedy = "check that the control source runs and that this host reaches it; weftd uses the last good list meanwhile, if it has one"
		}
		return found
	}
	return ok("%s lists %d nodes", l.source.Origin(), len(l.state.Nodes))
}

// checkList looks whether the list makes a plan for this node, and what the running weftd says
// of it.
func checkList(_ context.Context, h *host) (found []Finding) {
	l := h.list()
	listed := func() bool {
		for _, n := range l.state.Nodes {
			if n.Name == h.Config.Node {
				return true
			}
		}
		return false
	}
	switch {
	case l.loadErr != nil:
		found = skipped("there is no list of nodes")
	case h.registers() && !h.began() && !listed():
		found = skipped("this node, %s, is not registered yet; weftd does that when it starts", h.Config.Node)
	case l.planErr != nil:
		found = of(Failed, l.planErr.Error())
	case l.plan.Refused != nil:
		found = of(Warning, l.plan.Refused.Error())
	}
	if h.report != nil && h.report.State.Rejected != "" && l.loadErr == nil && l.planErr == nil {
		found = append(found, of(Warning, "weftd does not use the newest list as a whole: "+h.report.State.Rejected)...)
	}
	if len(found) == 0 {
		return ok("this node is %s; peers in the list: %d", h.Config.Node, len(l.plan.Peers))
	}
	return found
}

// mostCertificate bounds what is read of a file, in bytes.
const mostCertificate = 1 << 20

// soon is how long before its end a certificate is worth a warning.
const soon = 7 * 24 * time.Hour

// checkCertificates compares the dates of the control source's certificates with the clock.
// Those that peers show each other have none that count.
func checkCertificates(_ context.Context, h *host) (found []Finding) {
	files, secrets := sources.Files(h.Config)
	looked := 0
	for _, path := range files {
		if path == "" || slices.Contains(secrets, path) {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			continue // checkSource reports it
		}
		text, err := io.ReadAll(io.LimitReader(f, mostCertificate))
		f.Close()
		if err != nil {
			continue
		}
		all, bad := datesOf(path, text, time.Now())
		looked += all
		found = append(found, bad...)
	}
	switch {
	case len(found) > 0:
		return found
	case looked == 0:
		return skipped("the control source needs no certificates of files")
	}
	return ok("%d certificates of the control source are valid now", looked)
}

// datesOf returns how many certificates a PEM file has, and what is wrong with their dates.
func datesOf(path string, text []byte, now time.Time) (n int, found []Finding) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return n, found
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		n++
		is := func(what string, at time.Time) string {
			return fmt.Sprintf("%s: the certificate of %s %s %s", path, c.Subject, what, at.Format(time.RFC3339))
		}
		switch {
		case now.Before(c.NotBefore):
			found = append(found, fail(is("begins", c.NotBefore), "set the clock, or install another certificate")...)
		case now.After(c.NotAfter):
			found = append(found, fail(is("ended", c.NotAfter), "renew it, or set the clock")...)
		case now.Add(soon).After(c.NotAfter):
			found = append(found, warn(is("ends", c.NotAfter), "renew it")...)
		}
	}
}

// checkDaemon looks whether weftd runs and is ready. It is among the last: most of what keeps
// weftd from being ready has a check of its own.
func checkDaemon(_ context.Context, h *host) []Finding {
	switch {
	case h.lockErr != nil:
		return warn(h.lockErr.Error(), "run this as root")
	case !h.running && !h.began():
		return skipped("weftd has not run since the host booted")
	case !h.running:
		return fail("weftd does not run, so this node's pods don't reach those of other nodes", "systemctl start weftd; its log (journalctl -u weftd) says why it ended")
	case h.reportErr != nil:
		return of(Failed, h.reportErr.Error())
	case !h.report.Ready:
		return of(Failed, "weftd runs and is not ready: "+strings.ReplaceAll(h.report.NotReady, "\n", ", "))
	}
	return ok("weftd %s runs and is ready", h.report.Version)
}

// checkPeers names a few peers that don't answer, with the reasons.
func checkPeers(_ context.Context, h *host) (found []Finding) {
	const most = 3
	if h.report == nil {
		return skipped("no weftd answers")
	}
	unreachable, unknown := 0, 0
	for _, p := range h.report.Peers {
		if p.StateAt(time.Now()) == status.StateUnknown {
			unknown++
		}
		if !p.Unreachable() {
			continue
		}
		if unreachable++; unreachable <= most {
			reason, remedy, _ := strings.Cut(strings.ReplaceAll(p.Reason(), "\n", ", "), "; ")
			found = append(found, fail(p.Name+" is unreachable: "+reason, remedy)...)
		}
	}
	switch more := unreachable - most; {
	case more > 0:
		found[most-1].Found += fmt.Sprintf(" (and %d more peers)", more)
	case unreachable == 0 && unknown > 0 && unknown == len(h.report.Peers):
		return skipped("no peer has answered a probe yet; `weft probe` asks them")
	case unreachable == 0:
		return ok("no peer is unreachable, of %d", len(h.report.Peers))
	}
	return found
}
