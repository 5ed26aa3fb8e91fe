// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// How a connection can be broken.
const (
	networkCut      = "cut"       // it is reset, and so is each attempt to make a new one
	networkHalfOpen = "half-open" // what the pod sends is lost, and neither side is told
	networkSlow     = "slow"      // one packet a second leaves the pod, what is more is lost
	networkWell     = "well"
)

// runNetwork breaks or mends what a pod sends to a TCP port: network CONTAINER-ID PROGRAM PORT HOW. Like
// runSignal, it must see the node's processes.
func runNetwork(_ context.Context, args []string) error {
	if len(args) != 4 || len(args[0]) < 12 {
		return fmt.Errorf("want CONTAINER-ID PROGRAM PORT HOW, got %q", args)
	}
	port, err := strconv.ParseUint(args[2], 10, 16)
	if err != nil {
		return fmt.Errorf("reading the port: %w", err)
	}
	fault, known := networkFault(args[3])
	if !known {
		return fmt.Errorf("don't know how a network can be %q", args[3])
	}
	processes, err := findProcesses("/proc", args[0], args[1])
	if err != nil {
		return err
	}
	if len(processes) == 0 && args[3] == networkWell {
		return nil // it is gone
	}
	if len(processes) == 0 {
		return fmt.Errorf("container %s has no process %q", args[0], args[1])
	}
	namespace, err := os.Open(filepath.Join("/proc", strconv.Itoa(processes[0]), "ns", "net"))
	if err != nil {
		return fmt.Errorf("opening the pod's network: %w", err)
	}
	defer namespace.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(namespace.Fd())))
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	return breakPort(conn, uint16(port), fault)
}

// networkFault is what happens to a packet; nothing, where the network is well.
func networkFault(how string) (fault []expr.Any, known bool) {
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	switch how {
	case networkCut:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}, true
	case networkHalfOpen:
		return []expr.Any{drop}, true
	case networkSlow:
		return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Over: true}, drop}, true
	case networkWell:
		return nil, true
	default:
		return nil, false
	}
}

// breakPort replaces what an earlier call has done there.
func breakPort(conn *nftables.Conn, port uint16, fault []expr.Any) error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "headgate-e2e"}
	// Adding before deleting makes the deletion valid when there was no table.
	conn.AddTable(table)
	conn.DelTable(table)
	if len(fault) > 0 {
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{
			Name: "output", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
		})
		toPort := []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			// The destination port: two bytes at offset 2 of a TCP header.
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(toPort, fault...)})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("programming nftables: %w", err)
	}
	return nil
}
