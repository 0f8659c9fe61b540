package machine

import (
	"context"
	"os"
	"strings"
	"testing"
)

func TestCPUTimesAreOfTheWholeMachine(t *testing.T) {
	before, err := parseCPU("cpu  100 10 200 5000 50 5 85 20 30 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if want := (CPU{Busy: 4, Steal: 0.2, Idle: 50.5}); err != nil || before != want {
		t.Errorf("got %+v, %v", before, err)
	}
	after := CPU{Busy: 6, Steal: 1.2, Idle: 51.5}
	if got := after.Since(before); got != (CPU{Busy: 2, Steal: 1, Idle: 1}) || got.Share() != 0.75 {
		t.Errorf("got %+v, %v", got, got.Share())
	}
	if share := (CPU{}).Share(); share != 0 {
		t.Errorf("in no time, %v of it was used", share)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "cpu 1 2 3 4 5 6 7 x\n", "intr 1 2 3 4 5 6 7 8 9\n"} {
		if _, err := parseCPU(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestTheMachineIsDescribed(t *testing.T) {
	e, err := Describe()
	if err != nil || e.Kernel == "" || e.CPU == "" || e.Cores == 0 || e.MemoryGB < 0.1 {
		t.Errorf("got %+v, %v", e, err)
	}
	if got := parseModel("processor\t: 0\nmodel name\t: AMD EPYC 9000\n"); got != "AMD EPYC 9000" {
		t.Errorf("the model is %q", got)
	}
}

func TestABusyMachineIsTold(t *testing.T) {
	if why := (Environment{Cores: 2, Load1: 0.1, CPUShare: 0.01}).Disturbances(); len(why) != 0 {
		t.Errorf("a quiet one: %v", why)
	}
	why := strings.Join((Environment{Cores: 2, Load1: 1.5, CPUShare: 0.25}).Disturbances(), "; ")
	if !strings.Contains(why, "1.50 on 2 cores") || !strings.Contains(why, "25 %") {
		t.Errorf("got %s", why)
	}
}

func TestVersionsOfPrograms(t *testing.T) {
	line, err := FirstLine(context.Background(), "printf", `\none\ntwo\n`)
	if line != "one" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ModuleVersion(self); err != nil {
		t.Error(err)
	}
}
