package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weft/cniplugin/conflist"
	"weft/control"
	"weft/control/sources"
	"weft/internal/config"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/warning"
	"weft/ipam"
)

// warningInterval is how often weftd looks for warnings to log.
const warningInterval = 5 * time.Second

// Warnings returns what an operator needs to know while pods go on, sorted. It reads no file
// and asks nothing of the kernel: any local user may ask for metrics as often as it likes.
func (d *daemon) Warnings() []warning.Warning { return d.warnings(d.view()) }

func (d *daemon) warnings(v view) []warning.Warning {
	all := slices.Concat(d.offloadWarnings(), d.others.warnings(), v.keyWarnings(), d.pathWarnings(v))
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting, _ := d.engine.KeyChanges()
	for _, c := range waiting {
		all = append(all, c.Warning())
	}
	for _, w := range d.raised {
		all = append(all, w)
	}
	all = append(all, d.found...)
	return warning.Sort(append([]warning.Warning{}, all...)) // no null in JSON
}

// facts are what this node knows of itself beside the list of nodes.
func (d *daemon) facts() control.Facts {
	f := control.Facts{Listen: d.config.Listen, Registered: d.config.Control.Source != config.SourceFile}
	addrs, _ := net.InterfaceAddrs() // none: they are not known
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			f.Addresses = append(f.Addresses, p.Addr())
		}
	}
	return f
}

// warnNowAndThen logs each warning when it begins, and when it is over.
func (d *daemon) warnNowAndThen(ctx context.Context) error {
	var before []warning.Warning
	var clock clockWatch
	var repaired repairWatch
	look := func() error {
		found := repaired.look(d.host.Repairs(), time.Now())
		if up, err := sinceBoot(); err == nil { // as on any kernel that weftd runs on
			found = append(found, clock.look(time.Now(), up)...)
		}
		d.look(found)
		now := d.Warnings()
		begun, over := warning.News(before, now)
		for _, w := range begun {
			d.log.Warn("warning raised", "code", w.Code, "warning", w.Text)
		}
		for _, w := range over {
			d.log.Info("warning cleared", "code", w.Code, "warning", w.Text)
		}
		before = now
		return nil
	}
	_ = look()
	return every(ctx, warningInterval, look)
}

// warn raises a warning about a subject, or withdraws it if w is nil.
func (d *daemon) warn(subject string, w *warning.Warning) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w == nil {
		delete(d.raised, subject)
	} else {
		d.raised[subject] = *w
	}
}

// look looks for what is worth a warning in files and in the kernel, adds it to what was found
// otherwise, and has the control source publish which pods are stranded.
func (d *daemon) look(found []warning.Warning) {
	plan := d.activePlan()
	stranded, err := d.leases.stranded(plan)
	if err == nil { // or the next reconcile says what becomes of it
		d.publishStranded(stranded)
	}
	found = slices.Concat(found, conflist.Warnings(d.config.CNI), sources.Warnings(d.config), d.leases.warnings(plan, stranded))
	overlaps, err := hostnet.Overlaps(d.config.TUN.Name, d.config.ClusterCIDRs)
	if err != nil {
		overlaps = []string{err.Error()}
	}
	for _, text := range overlaps {
		found = append(found, warning.Warning{Code: "cluster_overlap", Text: text})
	}
	if plan != nil {
		found = append(found, control.Warnings(plan, d.facts())...)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found = found
}

// checkOverlap refuses a first start where a local network lies in the cluster CIDRs: the
// guard table would cut it off. Later, pods depend on weft, and a warning has to do.
func (d *daemon) checkOverlap() error {
	if _, err := nftable.Of(nftable.Inet, marks.Table); !errors.Is(err, nftable.ErrAbsent) {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.config.StateDir, ipam.DirName)); err == nil {
		return nil
	}
	overlaps, err := hostnet.Overlaps(d.config.TUN.Name, d.config.ClusterCIDRs)
	if err != nil {
		return err
	}
	var errs []error
	for _, text := range overlaps {
		errs = append(errs, fmt.Errorf("%w: %s", hostnet.ErrPrerequisite, text))
	}
	return errors.Join(errs...)
}
