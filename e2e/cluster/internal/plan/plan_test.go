// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"testing"
)

func TestSlotsGiveDisjointNetworks(t *testing.T) {
	all := netip.MustParsePrefix("172.31.0.0/16")
	reserved := netip.MustParsePrefix("172.31.0.0/24")
	seen := map[netip.Prefix]int{}
	for slot := range Slots {
		c := Cluster{Name: "a", Slot: slot}
		subnet := c.Subnet()
		if subnet != subnet.Masked() {
			t.Fatalf("slot %d: %s isn't the start of a network", slot, subnet)
		}
		if other, taken := seen[subnet]; taken {
			t.Fatalf("slots %d and %d share %s", slot, other, subnet)
		}
		seen[subnet] = slot
		for _, ip := range []netip.Addr{c.HostIP(), c.NodeIP()} {
			if !subnet.Contains(ip) || !all.Contains(ip) || reserved.Contains(ip) {
				t.Fatalf("slot %d: %s is outside of %s or of %s", slot, ip, subnet, all)
			}
		}
	}
}

func TestCandidateSlotsAreEverySlotOnceInAFixedOrder(t *testing.T) {
	seen := map[int]bool{}
	first := -1
	for slot := range CandidateSlots("dev") {
		if first < 0 {
			first = slot
		}
		if seen[slot] {
			t.Fatalf("slot %d came twice", slot)
		}
		seen[slot] = true
	}
	if len(seen) != Slots {
		t.Errorf("got %d slots, want %d", len(seen), Slots)
	}
	for slot := range CandidateSlots("dev") {
		if slot != first {
			t.Errorf("first slot of the same name was %d, now %d", first, slot)
		}
		break
	}
}

func TestCheckName(t *testing.T) {
	for name, tc := range map[string]struct {
		name  string
		valid bool
	}{
		"a letter":                       {"a", true},
		"a word":                         {"dev", true},
		"digits and dashes inside":       {"e2e-1-36", true},
		"the longest interface suffix":   {"abcdefghijkl", true},
		"one byte longer":                {"abcdefghijklm", false},
		"nothing":                        {"", false},
		"a dash at the end":              {"dev-", false},
		"a digit first":                  {"1dev", false},
		"an upper-case letter":           {"Dev", false},
		"a path":                         {"../etc", false},
		"a line break after a good name": {"dev\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := CheckName(tc.name) == nil; got != tc.valid {
				t.Errorf("CheckName(%q) valid = %v, want %v", tc.name, got, tc.valid)
			}
			if link := (Cluster{Name: tc.name}).HostLink(); tc.valid && len(link) > 15 {
				t.Errorf("interface name %q is longer than the kernel's 15 bytes", link)
			}
		})
	}
}
