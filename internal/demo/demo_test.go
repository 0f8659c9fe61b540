package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const nothingLeft = "no namespace, process or file is left"

// buildPrograms builds the demo and what it runs.
func buildPrograms(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: run this with sudo")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "weft/cmd/...", "weft/internal/demo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// runDemo runs the demo to its end, calls see with each line that it prints, and
// returns its exit status and output.
func runDemo(t *testing.T, bin string, see func(line string, demo *os.Process), args ...string) (int, string) {
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
		see(lines.Text(), cmd.Process)
	}
	_ = cmd.Wait() // the exit status tells
	return cmd.ProcessState.ExitCode(), output.String()
}

// mustRunNothing fails the test if a program of the folder bin is running.
func mustRunNothing(t *testing.T, bin string) {
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

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	bin := buildPrograms(t)
	for _, moment := range []string{
		"1  The topology", "2  Bring it up", "node2  weftd is ready", "pod b2",
		"3  What can be read", "4  Who reaches whom", "5  Which address", "6  How fast",
	} {
		t.Run(moment, func(t *testing.T) {
			status, output := runDemo(t, bin, func(line string, demo *os.Process) {
				if strings.Contains(line, moment) {
					_ = demo.Signal(syscall.SIGINT)
				}
			})
			if status != exitInterrupted || !strings.Contains(output, "interrupted") || !strings.Contains(output, nothingLeft) {
				t.Errorf("exit status %d:\n%s", status, output)
			}
			mustRunNothing(t, bin)
		})
	}
}

func TestFailedDemoShowsTheDaemonsLogAndLeavesNothing(t *testing.T) {
	bin := buildPrograms(t)
	status, output := runDemo(t, bin, func(string, *os.Process) {}, "--driver", "pigeon")
	if status != exitFailure || !strings.Contains(output, `"pigeon"`) || !strings.Contains(output, nothingLeft) {
		t.Errorf("exit status %d:\n%s", status, output)
	}
	if strings.Contains(output, "\x1b") {
		t.Errorf("escape sequences in a pipe: %q", output)
	}
	mustRunNothing(t, bin)
}

func TestUnknownEncapsulationIsRefusedBeforeAnythingIsMade(t *testing.T) {
	status, output := runDemo(t, buildPrograms(t), func(string, *os.Process) {}, "--encap", "pigeon")
	if want := "demo: unknown encapsulation \"pigeon\"; there are sealed and vxlan\n"; status != exitUsage || output != want {
		t.Errorf("exit status %d:\n%s", status, output)
	}
}
