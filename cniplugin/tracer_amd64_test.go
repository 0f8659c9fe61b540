package cniplugin

import "golang.org/x/sys/unix"

// skip keeps the kernel from the system call that thread is about to make: no call has
// the number -1.
func skip(thread int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(thread, &regs); err != nil {
		return err
	}
	regs.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(thread, &regs)
}

// setResult replaces what the system call that thread comes back from returned.
func setResult(thread int, result int64) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(thread, &regs); err != nil {
		return err
	}
	regs.Rax = uint64(result)
	return unix.PtraceSetRegs(thread, &regs)
}
