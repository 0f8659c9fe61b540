package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"weft/daemon/handover"
	"weft/router/tun"
)

var (
	// errHandedOver says that another weftd goes on with the data path.
	errHandedOver = errors.New("the data path is another weftd's")

	// errReplaced says that another weftd starts, without the data path.
	errReplaced = errors.New("another weftd starts")
)

// startLanes begins to forward. The lanes end last of all that runs: see end.
func (d *daemon) startLanes(ctx context.Context, group *errgroup.Group) {
	lanes, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	d.stopLanes = func() error {
		stop()
		return <-ended
	}
	requests := d.awaitSuccessors(ctx)
	go func() { ended <- d.forward(lanes, requests) }()
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- err
			return err
		}
	})
}

// awaitSuccessors receives requests of weftds that are to go on in this one's place, until ctx is
// done.
func (d *daemon) awaitSuccessors(ctx context.Context) <-chan *handover.Request {
	listener, err := handover.Listen(d.config.RunDir)
	if err != nil {
		d.log.Error("no hand-over possible", "error", err)
		return nil
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	requests := make(chan *handover.Request)
	go func() {
		for {
			r, err := listener.Accept()
			if err != nil {
				return // it is closed
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests
}

// startSuccessors starts this program again for each SIGUSR2, as it is on disk now, to take over. So
// systemd has the next weftd in the service's control group, and with its sandbox.
func startSuccessors(ctx context.Context, signals <-chan os.Signal, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
		}
		next := exec.Command(os.Args[0], successorArguments(os.Args[1:])...)
		next.Stdout, next.Stderr = os.Stdout, os.Stderr
		// A sibling: of a main process that was not its child when it learned of it, systemd does not
		// await the end, but kills it at the next stop (service_set_main_pid in its service.c).
		var pidfd int
		next.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT, PidFD: &pidfd}
		if err := next.Start(); err != nil {
			log.Error("next weftd not started", "error", err)
			continue
		}
		go func() { // unless this one ends first
			awaitExit(pidfd)
			log.Error("next weftd ended, see its log", "pid", next.Process.Pid)
		}()
	}
}

// awaitExit returns when a process has ended that need not be a child.
func awaitExit(pidfd int) {
	defer unix.Close(pidfd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// successorArguments returns the arguments of the weftd that takes over from one with own.
func successorArguments(own []string) []string {
	const flag = "--takeover"
	if slices.Contains(own, flag) {
		return own
	}
	return append(slices.Clone(own), flag)
}

// forward forwards packets until ctx is done, a lane fails, or another weftd goes on.
func (d *daemon) forward(ctx context.Context, requests <-chan *handover.Request) error {
	for {
		running, stop := context.WithCancel(ctx)
		p := d.path.Load()
		go d.followPeers(running, p)
		ended := make(chan error, 1)
		go func() { ended <- p.run(running) }()
		select {
		case err := <-ended:
			stop()
			return err
		case r := <-requests:
			err := d.yield(p, r, func() error {
				stop()
				return <-ended
			})
			stop()
			if err != nil {
				return err
			}
		}
	}
}

// yield has another weftd go on with the data path, whose lanes stopLanes ends. It returns nil if
// this one must go on.
func (d *daemon) yield(p *path, r *handover.Request, stopLanes func() error) error {
	d.applying.Lock() // before they stop, as a change of the host may take long
	defer d.applying.Unlock()
	if err := r.Check(d.spec()); err != nil {
		d.log.Warn("nothing handed over, another weftd starts", "pid", r.PID, "reason", err)
		r.Refuse(err)
		d.successor, d.replaced = r, true
		return errReplaced
	}
	d.save() // the other one has read the snapshot, and reads it again if it is another now
	if err := stopLanes(); err != nil {
		r.Refuse(err)
		return err
	}
	state := d.handOut(p)
	defer state.Wipe()
	err := r.Offer(d.config.RunDir, state, d.lock)
	switch {
	case err == nil:
		d.successor, d.replaced = r, true
		return errHandedOver
	case errors.Is(err, handover.ErrUnclear):
		d.replaced = true // the other one may change the host
		return err
	}
	d.log.Warn("not taken over, forwarding goes on", "pid", r.PID, "error", err)
	return d.usePath(&path{queues: p.queues, conns: p.conns}, p.proven(), state)
}

// end ends the lanes, now that everything else has ended for the reason err, and does with the data
// path what must be done then.
func (d *daemon) end(err error) error {
	if d.stopLanes != nil {
		// Another part may have failed too, and says nothing of whose the path is.
		if why := d.stopLanes(); err == nil || errors.Is(why, errHandedOver) || errors.Is(why, errReplaced) || errors.Is(why, handover.ErrUnclear) {
			err = why
		}
	}
	p := d.path.Load()
	switch {
	case errors.Is(err, errHandedOver):
		d.log.Info("data path handed over", "pid", d.successor.PID)
		d.announceSuccessor()
		return nil
	case errors.Is(err, errReplaced):
		d.announceSuccessor()
		return p.close()
	case errors.Is(err, handover.ErrUnclear): // the device stays persistent: the next weftd may forward with it
		return err
	}
	_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
	if d.socket != "" {
		_ = os.Remove(d.socket)
	}
	if p != nil {
		if err != nil || !handover.Supervised() {
			err = errors.Join(err, p.close())
		} else if err := d.storePath(p); err != nil {
			d.log.Warn("systemd keeps no data path", "error", err)
		}
	}
	d.log.Info("stopped, guard kept")
	return err
}

// announceSuccessor has systemd take the other weftd for the service.
func (d *daemon) announceSuccessor() {
	if !handover.Supervised() {
		return
	}
	if err := handover.NewMainProcess(d.successor.PID); err != nil {
		d.log.Warn("systemd does not know the next weftd", "error", err)
	}
}

// storePath has systemd keep the data path until the next start of the service. If it only stops,
// systemd closes the queues, and the device goes.
func (d *daemon) storePath(p *path) error {
	if err := tun.Persist(p.queues[0], false); err != nil {
		return errors.Join(err, p.close())
	}
	state := d.handOut(p)
	defer state.Wipe()
	if err := handover.Store(d.config.RunDir, state); err != nil {
		return fmt.Errorf("store the data path: %w", errors.Join(err, p.close()))
	}
	return nil
}
