package metrics

import (
	"runtime"
	"strconv"
	"time"

	"weft/drop"
	"weft/internal/version"
	"weft/internal/warning"
	"weft/router"
)

// groups is every metric of weft's.
var groups = []Group{
	{"State of the node", []Family{
		{"weft_ready", gauge, nil, "1 if /readyz answers 200: pods can be added.",
			func(s *Sample, add add) { add(number(s.Ready)) }},
		{"weft_healthy", gauge, nil, "1 if /healthz answers 200: the host's network is as the list of nodes requires, as far as weftd has applied one.",
			func(s *Sample, add add) { add(number(s.Healthy)) }},
		{"weft_warnings", gauge, []string{"code"}, "Warnings for operators by code (docs/operations/reference.md, Warnings); a code without a warning is absent.",
			func(s *Sample, add add) {
				for code, n := range warning.Counts(s.Warnings) {
					add(float64(n), code)
				}
			}},
		{"weft_build_info", gauge, []string{"version", "goversion"}, "Always 1; the labels name the build.",
			func(_ *Sample, add add) { add(1, version.Version, runtime.Version()) }},
		{"weft_node_info", gauge, []string{"node", "encapsulation", "driver", "control"}, "Always 1; the labels are what the node's configuration chooses.",
			func(s *Sample, add add) { add(1, s.Node, s.Encapsulation, s.Driver, s.Source) }},
	}},
	{"Data path", []Family{
		{"weft_packets_total", counter, []string{"direction"}, "Pods' packets forwarded, by direction: outbound to peers, inbound to this node.",
			func(s *Sample, add add) {
				add(float64(s.Stats.Outbound.Packets), outbound)
				add(float64(s.Stats.Inbound.Packets), inbound)
			}},
		{"weft_bytes_total", counter, []string{"direction"}, "Bytes of these packets, without encapsulation.",
			func(s *Sample, add add) {
				add(float64(s.Stats.Outbound.Bytes), outbound)
				add(float64(s.Stats.Inbound.Bytes), inbound)
			}},
		{"weft_superpackets_total", counter, []string{"direction"}, "Packets that passed the TUN device unsegmented, by direction; each counts as several in weft_packets_total.",
			func(s *Sample, add add) {
				add(float64(s.Stats.Outbound.SuperPackets), outbound)
				add(float64(s.Stats.Inbound.SuperPackets), inbound)
			}},
		{"weft_drops_total", counter, []string{"reason"}, "Packets and datagrams that weftd dropped, by reason (docs/operations/reference.md, Drop reasons).",
			func(s *Sample, add add) {
				for _, reason := range drop.All() {
					add(float64(s.Stats.Drops[reason]), reason.String())
				}
			}},
		{"weft_lane_packets_total", counter, []string{"lane", "direction"}, "weft_packets_total of each lane, except packets that waited for keys.",
			eachLane(func(t router.Traffic) uint64 { return t.Packets })},
		{"weft_lane_bytes_total", counter, []string{"lane", "direction"}, "weft_bytes_total of each lane, except packets that waited for keys.",
			eachLane(func(t router.Traffic) uint64 { return t.Bytes })},
		{"weft_lane_drops_total", counter, []string{"lane"}, "Packets and datagrams that each lane dropped, for all reasons together.",
			func(s *Sample, add add) {
				for i, l := range s.Lanes {
					total := uint64(0)
					for _, n := range l.Drops {
						total += n
					}
					add(float64(total), strconv.Itoa(i))
				}
			}},
		{"weft_udp_gso", gauge, nil, "1 if weftd sends runs of datagrams in one message, 0 if the kernel or the card refused that, or udp.gso or a known fault of this kernel forbids it.",
			func(s *Sample, add add) { add(number(s.GSO)) }},
		{"weft_udp_gro_datagrams_total", counter, nil, "Datagrams that the kernel joined with others before weftd read them.",
			func(s *Sample, add add) { add(float64(s.GRO)) }},
		{"weft_tun_joins", gauge, []string{"protocol"}, "1 if weftd joins received packets before it writes them to the TUN device, by protocol; 0 if the driver or the kernel accepts none.",
			func(s *Sample, add add) {
				add(number(s.JoinsTCP), "tcp")
				add(number(s.JoinsUDP), "udp")
			}},
		{"weft_tun_mtu_bytes", gauge, nil, "MTU of the TUN device; absent before weftd has set it.",
			func(s *Sample, add add) {
				if s.MTU > 0 {
					add(float64(s.MTU))
				}
			}},
		{"weft_fib_prefixes", gauge, nil, "Prefixes in the forwarding table, this node's own included.",
			func(s *Sample, add add) { add(float64(s.Prefixes)) }},
	}},
	{"Peers", []Family{
		{"weft_peers", gauge, nil, "Other nodes that this one forwards to.",
			func(s *Sample, add add) { add(float64(s.Peers.Count)) }},
		{"weft_peer_states", gauge, []string{"state"}, "Peers by state (docs/operations/reference.md, States of a peer), with _ for spaces. With vxlan, probes show the state: unknown if the peer has never answered one, as kernel VXLAN devices don't, or has got no packets yet, up, idle or unreachable.",
			func(s *Sample, add add) {
				for state, n := range s.Peers.States {
					add(float64(n), state)
				}
			}},
		{"weft_peers_path_mtu_reduced", gauge, nil, "Peers to which the path carries smaller packets than weft_tun_mtu_bytes, as probes have shown.",
			func(s *Sample, add add) { add(float64(s.Peers.Reduced)) }},
		{"weft_handshakes_total", counter, []string{"result"}, "Handshakes by result: agreed on keys, begun by either node; begun by this node, and failed or refused by a peer for now; begun by a peer, and turned_away by this node for now. Absent with vxlan.",
			ofHandshakes(func(h *Handshakes, add add) {
				add(float64(h.Agreed), "agreed")
				add(float64(h.Failed), "failed")
				add(float64(h.Refused), "refused")
				add(float64(h.TurnedAway), "turned_away")
			})},
		{"weft_peer_unreachable_total", counter, nil, "Times that a peer stopped answering; absent with vxlan.",
			ofHandshakes(func(h *Handshakes, add add) { add(float64(h.Unreachable)) })},
	}},
	{"Each peer", []Family{
		{"weft_peer_state", gauge, []string{"peer", "state"}, "Always 1; the label is the peer's state, as in weft_peer_states.",
			eachPeer(func(p *Peer, add add) { add(1, p.State) })},
		{"weft_peer_last_seen_timestamp_seconds", gauge, []string{"peer"}, "When the peer last showed a sign of life; absent before. Without packets for the peer there may be none.",
			eachPeer(func(p *Peer, add add) {
				if !p.Seen.IsZero() {
					add(seconds(p.Seen))
				}
			})},
		{"weft_peer_packets_total", counter, []string{"peer", "direction"}, "weft_packets_total by peer.",
			eachPeer(func(p *Peer, add add) {
				add(float64(p.SentPackets), outbound)
				add(float64(p.ReceivedPackets), inbound)
			})},
		{"weft_peer_bytes_total", counter, []string{"peer", "direction"}, "weft_bytes_total by peer.",
			eachPeer(func(p *Peer, add add) {
				add(float64(p.SentBytes), outbound)
				add(float64(p.ReceivedBytes), inbound)
			})},
		{"weft_peer_rtt_seconds", gauge, []string{"peer"}, "Smoothed round-trip time of probes over the data path, or of the handshake's connection before the first one is answered; absent while it is not known.",
			eachPeer(func(p *Peer, add add) {
				if p.RTT > 0 {
					add(p.RTT.Seconds())
				}
			})},
		{"weft_peer_path_mtu_bytes", gauge, []string{"peer"}, "Size of the largest packets of pods that arrive at the peer, as far as probes have shown; absent for kernel VXLAN devices.",
			eachPeer(func(p *Peer, add add) {
				if p.MTU > 0 {
					add(float64(p.MTU))
				}
			})},
		{"weft_peer_probe_loss_ratio", gauge, []string{"peer"}, "Part of the last 64 small probes that the peer did not answer, from 0 to 1; absent before it has answered one.",
			eachPeer(func(p *Peer, add add) {
				if p.Probed {
					add(p.Loss)
				}
			})},
	}},
	{"List of nodes", []Family{
		{"weft_control_reachable", gauge, nil, "1 if the control source answered when weftd last asked it.",
			func(s *Sample, add add) { add(number(s.Control.Reachable)) }},
		{"weft_control_last_contact_timestamp_seconds", gauge, nil, "When the control source last answered; absent before. A file is read, or looked at, every 10 s, etcd answers every 3 s, and the API server whenever a Node changes.",
			func(s *Sample, add add) {
				if !s.Control.Contact.IsZero() {
					add(seconds(s.Control.Contact))
				}
			}},
		{"weft_state_current", gauge, nil, "1 if the newest list of nodes is applied as a whole, in the data path and on the host; 0 if not, before the first one, or if the control source is unreachable.",
			func(s *Sample, add add) { add(number(s.List.Current)) }},
		{"weft_state_rejected_total", counter, nil, "Times that weftd did not apply a list of nodes as a whole, or received an error of the control source instead of one.",
			func(s *Sample, add add) { add(float64(s.List.Rejections)) }},
		{"weft_nodes_rejected", gauge, nil, "1 if nodes that registered themselves were rejected as peers (weft status says why).",
			func(s *Sample, add add) { add(number(s.List.RejectedNodes)) }},
		{"weft_peers_kept", gauge, nil, "Peers that are no longer in the list of nodes, and that weftd keeps until `weft confirm`.",
			func(s *Sample, add add) { add(float64(s.List.Kept)) }},
		{"weft_key_changes_total", counter, nil, "Times that the list had another key for a known node.",
			func(s *Sample, add add) { add(float64(s.List.KeyChanges)) }},
	}},
	{"Host", []Family{
		{"weft_guard_present", gauge, nil, "1 if the guard table in the kernel is the one that weftd has made.",
			func(s *Sample, add add) { add(number(s.Host.Guard)) }},
		{"weft_guard_drops_total", counter, []string{"counter"}, "Packets that the guard table dropped, by counter (docs/operations/reference.md, Counters of the guard table). They survive restarts of weftd; absent while the table can't be read.",
			each(func(s *Sample) map[string]uint64 { return s.Host.Drops })},
		{"weft_host_repairs_total", counter, []string{"object"}, "Times that weftd restored what another program had removed or changed: the guard_table, the bridge_table, or the network (routes, rules, addresses, devices and sysctls).",
			each(func(s *Sample) map[string]uint64 { return s.Host.Repairs })},
	}},
	{"Pods", []Family{
		{"weft_leases", gauge, nil, "Leases of this node's pods; absent while the lease file can't be read.",
			func(s *Sample, add add) {
				if s.Leases != nil {
					add(float64(s.Leases.Leases))
				}
			}},
		{"weft_pool_addresses", gauge, []string{"family", "state"}, "Addresses that pods of this node can get, by family (ipv4, ipv6) and state: leased, cooling_down (released recently; pods get these last) or free. Absent before weftd forwards, and while the lease file can't be read.",
			poolAddresses},
		{"weft_leases_unreconciled", gauge, nil, "Leases and veths of pods that only an operator can repair (weft status names them).",
			func(s *Sample, add add) { add(float64(s.Unreconciled)) }},
		{"weft_reconciled_total", counter, []string{"action"}, "What weftd did to reconcile leases: it freed a lease or veth that no pod uses, adopted a pod without a lease, rebuilt the damaged lease file, or rewired a pod from whose veth another program had removed routes or addresses.",
			each(func(s *Sample) map[string]uint64 { return s.Reconciled })},
	}},
}

const outbound, inbound = "outbound", "inbound"

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// each collects counts by the value of the only label.
func each(counts func(*Sample) map[string]uint64) func(*Sample, add) {
	return func(s *Sample, add add) {
		for label, n := range counts(s) {
			add(float64(n), label)
		}
	}
}

// eachLane collects one count of each lane's traffic.
func eachLane(count func(router.Traffic) uint64) func(*Sample, add) {
	return func(s *Sample, add add) {
		for i, l := range s.Lanes {
			add(float64(count(l.Outbound)), strconv.Itoa(i), outbound)
			add(float64(count(l.Inbound)), strconv.Itoa(i), inbound)
		}
	}
}

// eachPeer collects of each peer, whose name is the first label.
func eachPeer(collect func(*Peer, add)) func(*Sample, add) {
	return func(s *Sample, add add) {
		for i := range s.Peers.Each {
			p := &s.Peers.Each[i]
			collect(p, func(value float64, labels ...string) { add(value, append([]string{p.Name}, labels...)...) })
		}
	}
}

// ofHandshakes collects where packets are sealed.
func ofHandshakes(collect func(*Handshakes, add)) func(*Sample, add) {
	return func(s *Sample, add add) {
		if s.Handshakes != nil {
			collect(s.Handshakes, add)
		}
	}
}

// seconds is a time as Prometheus has it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func poolAddresses(s *Sample, add add) {
	if s.Leases == nil {
		return
	}
	for _, p := range s.Leases.Pools {
		family := "ipv" + p.Family.Digit()
		add(float64(p.Leased), family, "leased")
		add(float64(p.CoolingDown), family, "cooling_down")
		add(float64(p.Free()), family, "free")
	}
}
