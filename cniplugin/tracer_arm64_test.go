package cniplugin

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// skip keeps the kernel from the system call that thread is about to make: no call has
// the number -1. The number is no register of this architecture.
func skip(thread int) error {
	number := int32(-1)
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&number)), Len: uint64(unsafe.Sizeof(number))}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(thread),
		unix.NT_ARM_SYSTEM_CALL, uintptr(unsafe.Pointer(&iov)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setResult replaces what the system call that thread comes back from returned.
func setResult(thread int, result int64) error {
	const general = 1 // NT_PRSTATUS
	var regs unix.PtraceRegsArm64
	if err := unix.PtraceGetRegSetArm64(thread, general, &regs); err != nil {
		return err
	}
	regs.Regs[0] = uint64(result)
	return unix.PtraceSetRegSetArm64(thread, general, &regs)
}
