// Package stagetest runs demos for their tests, as their users do.
package stagetest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/internal/stage"
)

// NothingLeft is what a demo says when it has looked.
const NothingLeft = "no namespace, process or file is left"

// Build builds packages of a module into a folder. root is the module's.
func Build(t *testing.T, bin, root string, packages ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: run this with sudo")
	}
	build := exec.Command("go", append([]string{"build", "-o", bin + "/"}, packages...)...)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// Run runs the program demo in the folder bin to its end, calls see, unless that is nil,
// with each line that it prints, and returns its exit status and output.
func Run(t *testing.T, bin string, see func(line string, demo *os.Process), args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "demo"), append([]string{"--bin", bin}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var output strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		output.WriteString(lines.Text() + "\n")
		if see != nil {
			see(lines.Text(), cmd.Process)
		}
	}
	_ = cmd.Wait() // the exit status tells
	return cmd.ProcessState.ExitCode(), output.String()
}

// Interrupt interrupts a demo when it prints a line that contains the given text. It must
// end as interrupted, and leave nothing.
func Interrupt(t *testing.T, bin, moment string, args ...string) {
	t.Helper()
	status, output := Run(t, bin, func(line string, demo *os.Process) {
		if strings.Contains(line, moment) {
			_ = demo.Signal(syscall.SIGINT)
		}
	}, args...)
	if status != stage.ExitInterrupted || !strings.Contains(output, "interrupted") || !strings.Contains(output, NothingLeft) {
		t.Errorf("exit status %d:\n%s", status, output)
	}
	MustRunNothing(t, bin)
}

// MustRefuse fails the test unless the demo refuses to run with these arguments, for a
// reason and before anything is made.
func MustRefuse(t *testing.T, bin, reason string, args ...string) {
	t.Helper()
	status, output := Run(t, bin, nil, args...)
	if want := "demo: " + reason + "\n"; status != stage.ExitUsage || output != want {
		t.Errorf("%v: exit status %d:\n%s", args, status, output)
	}
}

// MustRunNothing fails the test if a program of the folder bin is running.
func MustRunNothing(t *testing.T, bin string) {
	t.Helper()
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range programs {
		if target, err := os.Readlink(exe); err == nil && strings.HasPrefix(target, bin+"/") {
			t.Errorf("%s still runs: %s", exe, target)
		}
	}
}
