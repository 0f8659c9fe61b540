package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
	"weft/internal/testnet"
)

// trafficSuite measures kinds of traffic between two pods.
type trafficSuite struct {
	profiles []string
	systems  []string
	kinds    []string // names of cells
	repeat   int
	time     time.Duration
	bin      string
	before   string // another version's folder; empty for none
}

var allProfiles = []string{string(testnet.Full), string(testnet.NoTunnel), string(testnet.Bare)}

// everything is what run measures by default.
func everything() *trafficSuite {
	return &trafficSuite{profiles: allProfiles, systems: systemNames(), kinds: measure.Names(measure.All()), repeat: 5, time: 4 * time.Second}
}

// theRatios is what quick measures by default.
func theRatios() *trafficSuite {
	return &trafficSuite{
		profiles: []string{string(testnet.NoTunnel)}, // as in most clouds
		systems:  pairedSystems(),
		kinds:    []string{"tcp1", "tcp8", "udp64", "rtt"},
		repeat:   3, time: time.Second,
	}
}

// pairedSystems are those that a pair has.
func pairedSystems() []string {
	return slices.DeleteFunc(systemNames(), func(name string) bool {
		return !slices.ContainsFunc(system.Pairs(), func(p system.Pair) bool { return p.System == name || p.To == name })
	})
}

func (t *trafficSuite) flags(to *flag.FlagSet) {
	choice(to, &t.profiles, "profiles", "offload `profiles` of the wire", allProfiles)
	choice(to, &t.systems, "systems", "`systems` to compare", systemNames())
	choice(to, &t.kinds, "cells", "`kinds` of traffic, see below", measure.Names(measure.All()))
	to.IntVar(&t.repeat, "repeat", t.repeat, "`number` of times that everything is measured")
	to.DurationVar(&t.time, "time", t.time, "`duration` of a measurement; TCP takes whole seconds")
	to.StringVar(&t.before, "before", "", "`folder` of another version's weftd and weft-cni, measured as before-vxlan and before-sealed (default: none)")
}

func (t *trafficSuite) check(bin string) error {
	t.bin = bin
	if t.repeat < 1 || t.time < 100*time.Millisecond {
		return errors.New("-repeat is at least 1, -time at least 100ms")
	}
	if t.before != "" {
		if err := makeAbsolute(&t.before); err != nil {
			return err
		}
		if err := require("-before says where it is", filepath.Join(t.before, "weftd"), filepath.Join(t.before, "weft-cni")); err != nil {
			return err
		}
	}
	p := t.programs()
	return require("`make bench` builds it, and -bin says where it is",
		filepath.Join(bin, "weftd"), filepath.Join(bin, "weft-cni"), t.podload(), p.WireGuard, p.Nebula, p.NebulaCert, p.Floor)
}

func (t *trafficSuite) podload() string { return filepath.Join(t.bin, "bench", "podload") }

func (t *trafficSuite) programs() system.Programs {
	program := func(name string) string { return filepath.Join(t.bin, "bench", name) }
	return system.Programs{
		Weft: t.bin, Before: t.before, WireGuard: program("wireguard-go"),
		Nebula: program("nebula"), NebulaCert: program("nebula-cert"), Floor: program("floor"),
	}
}

func systemNames() (names []string) {
	for _, s := range system.All() {
		names = append(names, s.Name)
	}
	return names
}

func (t *trafficSuite) cells() []measure.Cell { return measure.All() }

// chosenSystems are in the order of tables, and so are chosenCells.
func (t *trafficSuite) chosenSystems() []system.System {
	chosen := slices.DeleteFunc(system.All(), func(s system.System) bool { return !slices.Contains(t.systems, s.Name) })
	if t.before != "" {
		chosen = append(chosen, system.Before()...)
	}
	return chosen
}

func (t *trafficSuite) chosenCells() []measure.Cell {
	return slices.DeleteFunc(measure.All(), func(c measure.Cell) bool { return !slices.Contains(t.kinds, c.Name) })
}

func (t *trafficSuite) describe(ctx context.Context, r *result.Run) (samples int, err error) {
	r.InnerMTU, r.Repeat, r.Time = system.InnerMTU, t.repeat, t.time
	r.Baseline, r.Pairs = system.Baseline, system.Pairs()
	for _, s := range t.chosenSystems() {
		r.Systems = append(r.Systems, result.System{Name: s.Name, Encrypted: s.Encrypted})
	}
	r.Cells = measure.Names(t.chosenCells())
	samples = len(t.profiles) * t.repeat * len(r.Cells) * len(r.Systems)
	logf("%d measurements, about %v", samples, t.estimate().Round(time.Second))
	return samples, t.addVersions(ctx, r.Environment.Versions)
}

// addVersions asks all programs for their versions, and so finds out whether all are there.
func (t *trafficSuite) addVersions(ctx context.Context, versions map[string]string) (err error) {
	if versions["weft"], err = machine.FirstLine(ctx, filepath.Join(t.bin, "weftd"), "--version"); err != nil {
		return err
	}
	if t.before != "" {
		if versions["weft before"], err = machine.FirstLine(ctx, filepath.Join(t.before, "weftd"), "--version"); err != nil {
			return err
		}
	}
	for _, program := range []string{t.programs().WireGuard, t.programs().Nebula} {
		if versions[filepath.Base(program)], err = machine.ModuleVersion(program); err != nil {
			return err
		}
	}
	for _, c := range t.chosenCells() {
		for _, program := range c.Programs {
			if _, err := exec.LookPath(program); err != nil {
				return fmt.Errorf("%w; `make deps` installs it", err)
			}
			if versions[program], err = machine.FirstLine(ctx, program, "--version"); err != nil {
				return err
			}
		}
	}
	return nil
}

// startUp is about what starting, verifying and stopping a system takes.
const startUp = time.Second

func (t *trafficSuite) estimate() time.Duration {
	var perSystem time.Duration
	for _, c := range t.chosenCells() {
		perSystem += c.Takes(t.time)
	}
	perSystem = perSystem*time.Duration(t.repeat) + startUp
	return perSystem * time.Duration(len(t.chosenSystems())*len(t.profiles))
}

// measure measures profile by profile.
func (t *trafficSuite) measure(ctx context.Context, b *bencher) error {
	for _, profile := range t.profiles {
		if err := t.measureProfile(ctx, b, testnet.Offloads(profile)); err != nil {
			return err
		}
	}
	return nil
}

func (t *trafficSuite) measureProfile(ctx context.Context, b *bencher, profile testnet.Offloads) (err error) {
	var paths []*system.Path
	defer func() {
		for _, p := range paths {
			err = errors.Join(err, p.Stop())
		}
	}()
	for _, s := range t.chosenSystems() {
		p, err := s.Start(ctx, t.programs(), profile)
		if err != nil {
			return err
		}
		paths = append(paths, p)
	}
	idle, err := machine.Watch(watch)
	if err != nil {
		return err
	}
	b.run.Profiles = append(b.run.Profiles, result.Profile{
		Name: string(profile), Features: paths[0].Features[0], IdleShare: idle.Share(),
	})
	// Systems are next to each other in time.
	for repeat := range t.repeat {
		for _, c := range t.chosenCells() {
			for _, p := range rotate(paths, repeat) {
				s := result.NewSample(string(profile), p.System, c.Name, repeat)
				// A failure is not the end of the run.
				s.Fail(errors.Join(t.sample(ctx, c, p, &s), p.Crashed()))
				if err := b.add(ctx, s); err != nil {
					return err
				}
			}
		}
	}
	for _, p := range paths { // again: a path may have fallen back meanwhile
		if err := p.Verify(ctx); err != nil {
			return fmt.Errorf("after the measurements, %s is no longer what it claims: %w", p.System, err)
		}
	}
	return nil
}

// sample takes one measurement.
func (t *trafficSuite) sample(ctx context.Context, c measure.Cell, path *system.Path, s *result.Sample) error {
	before, err := path.Counters(ctx)
	if err != nil {
		return err
	}
	err = s.Spend(func() (err error) {
		s.Values, err = c.Measure(ctx, path, t.podload(), t.time)
		return err
	})
	if err != nil {
		return err
	}
	after, err := path.Counters(ctx)
	if err != nil {
		return err
	}
	s.Counters = after.Since(before)
	if s.Counters[system.DevicePackets[0]] == 0 {
		return errors.New("the load did not pass the system that it should")
	}
	return nil
}
