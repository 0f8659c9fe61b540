package machine

import (
	"context"
	"os"
	"strings"
	"testing"
)

func TestCPUTimesAreOfTheWholeMachine(t *testing.T) {
	now, err := readCPU()
	if err != nil || now.Busy <= 0 || now.Idle <= 0 {
		t.Errorf("got %+v, %v", now, err)
	}
	before, after := CPU{Busy: 4, Steal: 0.25, Idle: 50.5}, CPU{Busy: 6, Steal: 1.25, Idle: 51.5}
	if got := after.Since(before); got != (CPU{Busy: 2, Steal: 1, Idle: 1}) || got.Share() != 0.75 {
		t.Errorf("got %+v, %v", got, got.Share())
	}
	if share := (CPU{}).Share(); share != 0 {
		t.Errorf("in no time, %v of it was used", share)
	}
}

func TestTheMachineIsDescribed(t *testing.T) {
	e, err := Describe()
	if err != nil || e.Kernel == "" || e.CPU == "" || e.Cores == 0 || e.MemoryGB < 0.1 {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestBusyMachineIsReported(t *testing.T) {
	if why := (Environment{Cores: 2, Load1: 0.1, CPUShare: 0.01}).Disturbances(); len(why) != 0 {
		t.Errorf("a quiet one: %v", why)
	}
	why := strings.Join((Environment{Cores: 2, Load1: 1.5, CPUShare: 0.25}).Disturbances(), "; ")
	if !strings.Contains(why, "1.50 on 2 cores") || !strings.Contains(why, "25 %") {
		t.Errorf("got %s", why)
	}
}

func TestPricesAreMeasured(t *testing.T) {
	p, err := MeasurePrices()
	if err != nil || p.SystemCall <= 0 || p.WakeUp <= 0 || p.Copy64KiB <= 0 {
		t.Errorf("got %+v, %v", p, err)
	}
	t.Log(p)
	const want = "a system call takes 0.21 µs, a wake-up 14 µs, a copy of 64 KiB 9.04 µs"
	if got := (Prices{SystemCall: 210, WakeUp: 14200, Copy64KiB: 9040}).String(); got != want {
		t.Errorf("got %q", got)
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
