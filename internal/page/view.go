package page

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"weft/drop"
	"weft/internal/events"
	"weft/internal/hostnet"
	"weft/internal/status"
	"weft/internal/units"
)

// Bounds of what the page names. Whatever peers and pods do, and however many there are, the
// page stays about as large.
const (
	mostProblems = 30
	mostPeers    = 100
	mostEvents   = 50
	mostName     = 253 // bytes
	mostText     = 1000
	mostReason   = 300

	eventsSince = 24 * time.Hour
)

// level is how serious something is. Its values are CSS classes.
type level string

const (
	good    level = "good"
	neutral level = "neutral" // neither good nor bad: idle
	warn    level = "warn"
	bad     level = "bad"
)

// view is what the template shows, all of it ready to print.
type view struct {
	Node, Version, Encapsulation string
	At                           time.Time

	Level         level
	Word, Summary string // "Degraded", "1 of 2 peers unreachable"

	Problems     []problem
	MoreProblems string

	Figures []figure
	Parts   []part
	Cards   []card // of the picture
	Peers   []peer
	More    rest // peers beyond those
	Drops   []drops
	Pools   []pool
	Leases  string
	Events  []event
	Earlier string // events that are not shown
}

type problem struct {
	Level        level
	Kind, Code   string
	What, Remedy string
}

// figure is a number to see first.
type figure struct {
	Name, Value, Note string
	Level             level
}

// part is a part of weft on this host.
type part struct {
	Name, Note, Value string
	Level             level
}

type drops struct {
	By, Reason, What, Remedy string
	Recent, Total            string
	Level                    level
}

type pool struct {
	Family, Text  string
	Used, Cooling float64 // parts of a bar, in percent
	Level         level
}

type event struct {
	moment
	Level                level
	What, Subject, Times string
}

func newView(r status.Report, journal events.Page, now time.Time) view {
	v := view{
		Node: shown(r.Node, mostName), Version: r.Version, Encapsulation: r.Encapsulation, At: now.UTC(),
		Drops: dropsOf(r), Pools: poolsOf(r.Leases), Parts: partsOf(r),
	}
	v.Level, v.Word, v.Summary = summaryOf(r)
	v.Problems, v.MoreProblems = problemsOf(r)
	all := peersOf(r, now)
	v.Cards = cardsOf(all)
	v.Peers, v.More = all[:min(len(all), mostPeers)], restOf(all[min(len(all), mostPeers):])
	v.Figures = figuresOf(r, all)
	v.Leases = plural(uint64(r.Leases.Held), "lease", "leases") + ", " + plural(uint64(r.Leases.CoolingDown), "address cools down", "addresses cool down")
	v.Events, v.Earlier = eventsOf(journal, now)
	return v
}

// summaryOf splits a report's summary into a word and the rest.
func summaryOf(r status.Report) (level, string, string) {
	text := func(prefix string) string { return shown(strings.TrimPrefix(r.Summary, prefix), mostText) }
	degrades := slices.ContainsFunc(r.Problems, func(p status.Problem) bool { return p.Degrades })
	switch {
	case !r.Ready:
		return bad, "Not ready", text("NOT READY: ")
	case degrades:
		return bad, "Degraded", text("DEGRADED: ")
	case r.Summary == "ready":
		return good, "Ready", "nothing is wrong"
	}
	return warn, "Ready", text("ready, ")
}

// withheld are the warnings whose texts the page does not show: they say which secret is readable.
var withheld = map[string]string{
	"secret_readable": "every user of this host can read a secret; `weft status` says which one, and what to do",
}

func problemsOf(r status.Report) (all []problem, more string) {
	for _, p := range r.Problems[:min(len(r.Problems), mostProblems)] {
		at := warn
		if p.Degrades {
			at = bad
		}
		what, remedy := split(p)
		all = append(all, problem{at, strings.ToLower(p.Kind), p.Code, shown(what, mostText), shown(remedy, mostText)})
	}
	if n := len(r.Problems) - len(all); n > 0 {
		more = plural(uint64(n), "more", "more")
	}
	return all, more
}

// split returns what a problem is, and what to do.
func split(p status.Problem) (what, remedy string) {
	text := cmp.Or(withheld[p.Code], p.Text)
	for _, remedy := range []string{drop.Parse(p.Code).Explain().Remedy, hostnet.Explain(p.Code).Remedy} {
		if what, ok := strings.CutSuffix(text, "; "+remedy); ok && remedy != "" {
			return what, remedy
		}
	}
	if i := strings.LastIndex(text, "; "); i >= 0 {
		return text[:i], text[i+2:]
	}
	return text, ""
}

func figuresOf(r status.Report, peers []peer) []figure {
	total := restOf(peers)
	reachable := figure{Name: "Peers", Value: count(uint64(len(peers))), Note: "no other node is known", Level: neutral}
	if len(peers) > 0 {
		reachable.Note, reachable.Level = total.States, good
	}
	if total.unreachable > 0 {
		reachable.Level = bad
	}
	weftd, guard := sum(r.RecentDrops), sum(r.RecentGuardDrops)
	dropped := figure{Name: "Dropped in the last minute", Value: count(weftd + guard), Note: "by weftd " + count(weftd) + ", by the guard " + count(guard), Level: neutral}
	if weftd+guard > 0 {
		dropped.Level = warn
	}
	return []figure{
		reachable,
		{Name: "Sent to peers", Value: units.BitRate(float64(total.sent)), Note: units.Bytes(r.Outbound.Bytes) + " in " + plural(r.Outbound.Packets, "packet", "packets"), Level: neutral},
		{Name: "Received from peers", Value: units.BitRate(float64(total.received)), Note: units.Bytes(r.Inbound.Bytes) + " in " + plural(r.Inbound.Packets, "packet", "packets"), Level: neutral},
		dropped,
	}
}

func sum(counters map[string]uint64) (n uint64) {
	for c := range maps.Values(counters) {
		n += c
	}
	return n
}

func partsOf(r status.Report) []part {
	state := func(name, ok string, p status.Part) part {
		switch p.Error {
		case "":
			return part{name, "", ok, good}
		case status.NotYet:
			return part{name, "", "not yet", warn}
		}
		return part{name, "", "not as it must be", bad}
	}
	list := part{"List of nodes", "from " + shown(r.State.Source, mostReason), "up to date", good}
	switch {
	case r.State.Source == "":
		list.Note, list.Value, list.Level = "", "none yet", warn
	case r.State.Rejected != "":
		list.Value, list.Level = "not up to date", bad
	case r.State.RejectedNodes != "":
		list.Value, list.Level = "some nodes rejected", warn
	}
	return []part{
		state("Guard table", "installed", r.Guard),
		state("Routes, rules and sysctls", "as they must be", r.Host),
		state("Conflist", "written", r.Conflist),
		list,
	}
}

// dropsOf lists what was dropped, what was dropped lately first.
func dropsOf(r status.Report) (all []drops) {
	add := func(by string, total, recent map[string]uint64, explain func(name string) (what, remedy string)) {
		for _, name := range slices.Sorted(maps.Keys(total)) {
			if total[name] == 0 {
				continue
			}
			d := drops{By: by, Reason: name, Total: count(total[name]), Recent: count(recent[name]), Level: neutral}
			d.What, d.Remedy = explain(name)
			if recent[name] > 0 {
				d.Level = warn
			}
			all = append(all, d)
		}
	}
	add("weftd", r.Drops, r.RecentDrops, func(name string) (string, string) {
		e := drop.Parse(name).Explain()
		return e.What, e.Remedy
	})
	add("guard", r.GuardDrops, r.RecentGuardDrops, func(name string) (string, string) {
		e := hostnet.Explain(name)
		return e.What, e.Remedy
	})
	lately := func(d drops) int {
		if d.Level == warn {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b drops) int { return cmp.Compare(lately(a), lately(b)) })
	return all
}

func poolsOf(l status.Leases) (all []pool) {
	for _, p := range l.Pools {
		shown := pool{Family: p.Family.String(), Level: good}
		if p.Size > 0 {
			percent := func(n uint64) float64 { return 100 * float64(n) / float64(p.Size) }
			shown.Used, shown.Cooling = percent(p.Leased), percent(p.CoolingDown)
		}
		const nearly, huge = 90, 1 << 32
		switch {
		case p.Free() == 0:
			shown.Level = bad
		case shown.Used >= nearly:
			shown.Level = warn
		}
		shown.Text = count(p.Leased) + " of " + count(p.Size) + " leased"
		if p.Size >= huge {
			shown.Text = count(p.Leased) + " leased, billions free"
		}
		if p.CoolingDown > 0 {
			shown.Text += ", " + count(p.CoolingDown) + " cooling down"
		}
		all = append(all, shown)
	}
	return all
}

// eventsOf lists the newest events first, without their texts: these are what the log says, which
// not every user of the host may read.
func eventsOf(journal events.Page, now time.Time) (all []event, earlier string) {
	for _, e := range slices.Backward(journal.Events) {
		if len(all) == mostEvents {
			earlier = plural(uint64(len(journal.Events)-mostEvents), "earlier event", "earlier events")
			break
		}
		shown := event{moment: momentOf(e.Time, now), Level: neutral, What: strings.ReplaceAll(shown(e.Code, mostReason), "_", " "), Subject: shown(e.Subject, mostName)}
		switch e.Level {
		case "WARN":
			shown.Level = warn
		case "ERROR":
			shown.Level = bad
		}
		if e.Count > 1 {
			shown.Times = plural(uint64(e.Count), "time", "times") + " since " + e.First.UTC().Format(time.TimeOnly)
		}
		all = append(all, shown)
	}
	return all, earlier
}
