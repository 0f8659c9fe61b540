package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weft/internal/status"
	"weft/internal/version"
)

// maxSnapLen is more than a super-packet has.
const maxSnapLen = 262144

func newCaptureCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "capture",
		Short: "Capture pods' packets as weftd forwards or drops them",
		Long: "Capture pods' packets in weftd: outbound before they are encapsulated, inbound after that was\n" +
			"removed, in clear also where the underlay's are sealed. The output is pcap-ng, for example for\n" +
			"tshark -r -. The comment of each packet has its direction, peer, lane, and why weftd dropped\n" +
			"it, if it did. Super-packets are captured whole, before they are cut into segments, and\n" +
			"checksums may be partial. Packets that the guard table drops never reach weftd. The capture\n" +
			"ends after --count packets, or with Ctrl-C.",
		Args: cobra.NoArgs,
	}
	file := c.Flags().StringP("write", "w", "-", "`file` to write to; - is standard output")
	hosts := c.Flags().StringSlice("host", nil, "`address` or prefix of either end; may be repeated")
	peer := c.Flags().String("peer", "", "only packets to and from this `peer`")
	dropped := c.Flags().Bool("dropped", false, "only packets that weftd drops")
	count := c.Flags().IntP("count", "c", 0, "end after so many packets; 0: never")
	snapLen := c.Flags().IntP("snaplen", "s", maxSnapLen, fmt.Sprintf("how many `bytes` of each packet to capture, 1 to %d", maxSnapLen))
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *snapLen < 1 || *snapLen > maxSnapLen {
			return fmt.Errorf("--snaplen %d: must be from 1 to %d", *snapLen, maxSnapLen)
		}
		if *count < 0 {
			return fmt.Errorf("--count %d: must not be negative", *count)
		}
		filter := status.CaptureFilter{Peer: *peer, Dropped: *dropped, SnapLen: *snapLen}
		for _, text := range *hosts {
			host, err := parseHost(text)
			if err != nil {
				return err
			}
			filter.Hosts = append(filter.Hosts, host)
		}
		out, err := openCapture(c, *file)
		if err != nil {
			return err
		}
		err = capture(c, *socket, filter, *count, out)
		return failed(errors.Join(err, out.Close()))
	}
	return c
}

// parseHost reads an address or a prefix.
func parseHost(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("--host %s: not an address such as 10.244.1.2, nor a prefix such as 10.244.1.0/24", strconv.Quote(text))
	}
	return prefix.Masked(), nil
}

// openCapture opens what to write to. Packets of pods are for their owners' eyes only.
func openCapture(c *cobra.Command, name string) (io.WriteCloser, error) {
	if name != "-" {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, failed(fmt.Errorf("open the file to write to: %w; name another one with --write", err))
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() { // one that there was may be for everybody
			err = f.Chmod(0o600)
			if err != nil {
				return nil, failed(errors.Join(fmt.Errorf("keep the capture from other users: %w", err), f.Close()))
			}
		}
		return f, nil
	}
	if f, ok := c.OutOrStdout().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("the capture is binary; write it into a file with -w, or pipe it: weft capture | tshark -r -")
	}
	return nopCloser{c.OutOrStdout()}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

var errEnough = errors.New("enough packets")

// capture writes what weftd captures.
func capture(c *cobra.Command, socket string, filter status.CaptureFilter, count int, out io.Writer) error {
	options := pcapgo.DefaultNgWriterOptions
	options.SectionInfo.Application = "weft " + version.Version
	device := pcapgo.DefaultNgInterface
	device.Name, device.Description, device.LinkType, device.SnapLength = "weft", "pods' packets in weftd", layers.LinkTypeRaw, uint32(filter.SnapLen)
	w, err := pcapgo.NewNgWriterInterface(out, device, options)
	if err != nil {
		return fmt.Errorf("write the capture: %w", err)
	}
	if err := w.Flush(); err != nil { // a reader in a pipe waits for it
		return fmt.Errorf("write the capture: %w", err)
	}
	captured, lost := 0, uint64(0)
	began := func() { fmt.Fprintln(c.ErrOrStderr(), "capturing; Ctrl-C ends it") }
	err = status.CapturePackets(c.Context(), socket, filter, began, func(p status.CapturedPacket) error {
		captured, lost = captured+1, lost+p.Lost
		if err := writePacket(w, p); err != nil {
			return err
		}
		if captured == count {
			return errEnough
		}
		return nil
	})
	fmt.Fprintf(c.ErrOrStderr(), "%d %s captured, %d lost because they came too fast\n", captured, plural(captured, "packet"), lost)
	if errors.Is(err, errEnough) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// writePacket writes a packet with its comment, so that it can be read at once.
func writePacket(w *pcapgo.NgWriter, p status.CapturedPacket) error {
	info := gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length}
	options := pcapgo.NgPacketOptions{Comments: []string{comment(p)}}
	if p.Lost > 0 {
		options.DropCount = &p.Lost
	}
	if err := w.WritePacketWithOptions(info, p.Data, options); err != nil {
		return fmt.Errorf("write the capture: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the capture: %w", err)
	}
	return nil
}

// comment says what weftd did with a packet.
func comment(p status.CapturedPacket) string {
	words := []string{p.Direction, fmt.Sprintf("lane %d", p.Lane)}
	if p.Peer != "" {
		words = append(words, "peer "+p.Peer)
	}
	if p.SegmentSize > 0 {
		words = append(words, fmt.Sprintf("super-packet of segments of %d bytes", p.SegmentSize))
	}
	if p.Drop != "" {
		words = append(words, "DROPPED: "+p.Drop)
	}
	return strings.Join(words, ", ")
}
