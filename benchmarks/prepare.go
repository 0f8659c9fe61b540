package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

// watch is how long the machine is watched to see how busy others keep it.
const watch = 500 * time.Millisecond

// lookAround describes the machine, and how busy others keep it.
func lookAround() (machine.Environment, error) {
	environment, err := machine.Describe()
	if err != nil {
		return environment, err
	}
	others, err := machine.Watch(watch)
	environment.CPUShare = others.Share()
	return environment, err
}

// prepare looks at the machine and says what will be done.
func (b *bencher) prepare(ctx context.Context) error {
	environment, err := lookAround()
	if err != nil {
		return err
	}
	if environment.Versions, err = b.versions(ctx); err != nil {
		return err
	}
	b.run = &result.Run{
		Started: time.Now(), Environment: environment,
		InnerMTU: system.InnerMTU, Repeat: b.options.repeat, Time: b.options.time,
		Baseline: system.Baseline,
	}
	for _, s := range b.systems {
		b.run.Systems = append(b.run.Systems, result.System{Name: s.Name, Encrypted: s.Encrypted})
	}
	for _, c := range b.cells {
		b.run.Cells = append(b.run.Cells, c.Name)
	}
	for _, why := range environment.Disturbances() {
		logf("WARNING: %s; figures taken now are noise", why)
	}
	logf("%d measurements, about %v", b.total(), b.estimate().Round(time.Second))
	return nil
}

// versions asks the programs, and finds out whether all are there.
func (b *bencher) versions(ctx context.Context) (map[string]string, error) {
	versions := map[string]string{}
	var err error
	if versions["weft"], err = machine.FirstLine(ctx, filepath.Join(b.options.bin, "weftd"), "--version"); err != nil {
		return nil, err
	}
	if versions["wireguard-go"], err = machine.ModuleVersion(b.options.programs().WireGuard); err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for _, c := range b.cells {
		for _, program := range c.Programs {
			needed[program] = true
		}
	}
	for program := range maps.Keys(needed) {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w; `make deps` installs it", err)
		}
		if versions[program], err = machine.FirstLine(ctx, program, "--version"); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// total is the number of measurements.
func (b *bencher) total() int {
	return len(b.options.profiles) * b.options.repeat * len(b.cells) * len(b.systems)
}

// startUp is about what starting, verifying and stopping a system takes.
const startUp = time.Second

func (b *bencher) estimate() time.Duration {
	var perSystem time.Duration
	for _, c := range b.cells {
		perSystem += c.Takes(b.options.time)
	}
	perSystem = perSystem*time.Duration(b.options.repeat) + startUp
	return perSystem * time.Duration(len(b.systems)*len(b.options.profiles))
}
