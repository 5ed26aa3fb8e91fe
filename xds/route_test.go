// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"regexp"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// request is what routes look at: headers, among which stand the runtime keys that are set; roll is Envoy's random
// number, 0 to 99.
type request struct {
	headers map[string]string
	roll    uint32
}

// evaluate says which cluster gets a request to the named routes, "404" when none.
func evaluate(t *testing.T, r Resources, routes string, q request) string {
	t.Helper()
	x, ok := r.Get(Routes, routes)
	if !ok {
		return "no routes"
	}
	var rc routev3.RouteConfiguration
	if err := x.Body.UnmarshalTo(&rc); err != nil {
		t.Fatal(err)
	}
	for _, route := range rc.GetVirtualHosts()[0].GetRoutes() {
		if matches(t, route.GetMatch(), q) {
			if route.GetDirectResponse() != nil {
				return route.GetName()
			}
			return choose(t, route.GetRoute(), q.roll)
		}
	}
	return "404"
}

func matches(t *testing.T, m *routev3.RouteMatch, q request) bool {
	t.Helper()
	if m.GetPrefix() != "/" {
		t.Fatalf("the evaluator knows only prefix /, not %v", m)
	}
	if f := m.GetRuntimeFraction(); f != nil && q.headers[f.GetRuntimeKey()] == "" { // the default of all is 0
		return false
	}
	for _, h := range m.GetHeaders() {
		value, present := q.headers[h.GetName()]
		if h.GetPresentMatch() {
			if present == h.GetInvertMatch() {
				return false
			}
			continue
		}
		var ok bool
		switch p := h.GetStringMatch().GetMatchPattern().(type) {
		case *matcherv3.StringMatcher_Exact:
			ok = value == p.Exact
		case *matcherv3.StringMatcher_SafeRegex:
			ok = regexp.MustCompile("^(?:" + p.SafeRegex.GetRegex() + ")$").MatchString(value)
		default:
			t.Fatalf("the evaluator does not know %T", p)
		}
		if !present || ok == h.GetInvertMatch() {
			return false
		}
	}
	return true
}

func choose(t *testing.T, a *routev3.RouteAction, roll uint32) string {
	t.Helper()
	if c := a.GetCluster(); c != "" {
		return c
	}
	sum := uint32(0)
	for _, c := range a.GetWeightedClusters().GetClusters() {
		sum += c.GetWeight().GetValue()
	}
	if sum != fullWeight {
		t.Fatalf("weights sum up to %d, want %d", sum, fullWeight)
	}
	for _, c := range a.GetWeightedClusters().GetClusters() {
		if roll < c.GetWeight().GetValue() {
			return c.GetName()
		}
		roll -= c.GetWeight().GetValue()
	}
	t.Fatalf("roll beyond all weights")
	return ""
}

func TestWhereRequestsGo(t *testing.T) {
	split, candidate := web(25, "10.0.0.1"), web(75, "10.0.0.1")
	unjudged, alone, over, overAlone := web(100, "10.0.0.1"), web(100), web(100, "10.0.0.1"), web(100)
	for _, w := range []Workload{candidate, unjudged, alone, over, overAlone} {
		w.Split.PeerIsStable = true
	}
	over.Split.Over, overAlone.Split.Over = true, true
	host := func(h string) map[string]string { return map[string]string{":authority": h} }
	for name, tc := range map[string]struct {
		w      Workload
		routes string
		q      request
		want   string
	}{
		"at rest everything is local":                     {atRest(split), "capture|8080", request{host("web"), 0}, "local|8080"},
		"the weight's last request goes to the peer":      {split, "capture|8080", request{host("web"), 24}, "peer|8080|7f9c6d5b4"},
		"the next one stays":                              {split, "capture|8080", request{host("web"), 25}, "local|8080"},
		"the candidate has the same rolls at itself":      {candidate, "capture|8080", request{host("web"), 24}, "local|8080"},
		"and sends the others to stable":                  {candidate, "capture|8080", request{host("web"), 25}, "peer|8080|7f9c6d5b4"},
		"weight 0 sends none":                             {web(0, "10.0.0.1"), "capture|8080", request{host("web"), 0}, "local|8080"},
		"weight 100 sends all":                            {web(100, "10.0.0.1"), "capture|8080", request{host("web"), 99}, "peer|8080|7f9c6d5b4"},
		"a candidate of weight 0 never answers itself":    {unjudged, "capture|8080", request{host("web"), 0}, "peerconn|8080|7f9c6d5b4"},
		"but it does when stable has nobody":              {alone, "capture|8080", request{host("web"), 0}, "peer|8080|7f9c6d5b4"},
		"without peers the composite falls back":          {web(100), "capture|8080", request{host("web"), 0}, "peer|8080|7f9c6d5b4"},
		"a port that the peer lacks is not split":         {web(100, "10.0.0.1"), "capture|9102", request{host("web"), 0}, "local|9102"},
		"a port for bytes has no routes":                  {split, "capture|9000", request{host("web"), 0}, "no routes"},
		"an IPv4 address with port means this pod":        {split, "capture|8080", request{host("10.0.0.9:8080"), 0}, "direct|8080"},
		"an IPv4 address means this pod":                  {split, "capture|8080", request{host("10.0.0.9"), 0}, "direct|8080"},
		"an IPv6 address means this pod":                  {split, "capture|8080", request{host("[fd00::9]:8080"), 0}, "direct|8080"},
		"a Host that HTTP/1.0 lacked means this pod":      {split, "capture|8080", request{host(hostlessHost), 0}, "direct|8080"},
		"a name that begins with an address is a name":    {split, "capture|8080", request{host("10.0.0.9.nip.example"), 0}, "peer|8080|7f9c6d5b4"},
		"a name that ends with an address is a name":      {split, "capture|8080", request{host("x10.0.0.9"), 0}, "peer|8080|7f9c6d5b4"},
		"from a peer, a captured port":                    {split, "peers", request{map[string]string{PortHeader: "8080"}, 0}, "in|8080"},
		"from a peer, a captured port for bytes":          {split, "peers", request{map[string]string{PortHeader: "9000"}, 0}, "in|9000"},
		"from a peer, while the pod ends":                 {split, "peers", request{map[string]string{PortHeader: "8080", LeavingKey: "100"}, 0}, "inonce|8080"},
		"from a peer that means this revision":            {split, "peers", request{map[string]string{PortHeader: "8080", forHeader: "shop/web.v1/6d4b75cb6d"}, 0}, "in|8080"},
		"from a peer that means another revision":         {split, "peers", request{map[string]string{PortHeader: "8080", forHeader: "shop/web.v1/7f9c6d5b4"}, 0}, "not-here"},
		"from a peer that means another workload":         {split, "peers", request{map[string]string{PortHeader: "8080", forHeader: "shop/web/6d4b75cb6d"}, 0}, "not-here"},
		"to one that is over, but means another":          {over, "peers", request{map[string]string{PortHeader: "8080", forHeader: "shop/web/6d4b75cb6d"}, 0}, "not-here"},
		"to a candidate of weight 0 that is judged":       {unjudged, "peers", request{map[string]string{PortHeader: "8080"}, 0}, "in|8080"},
		"to one that is over":                             {over, "peers", request{map[string]string{PortHeader: "8080"}, 0}, "peerconn|8080|7f9c6d5b4"},
		"to one that is over, while its pod ends":         {over, "peers", request{map[string]string{PortHeader: "8080", LeavingKey: "100"}, 0}, "peerconn|8080|7f9c6d5b4"},
		"to one that is over, by one that was over":       {over, "peers", request{map[string]string{PortHeader: "8080", handedOnHeader: "true"}, 0}, "in|8080"},
		"to one that is over, a port that stable lacks":   {over, "peers", request{map[string]string{PortHeader: "9102"}, 0}, "in|9102"},
		"to one that is over, without any stable pod":     {overAlone, "peers", request{map[string]string{PortHeader: "8080"}, 0}, "in|8080"},
		"from a peer, any other port":                     {split, "peers", request{map[string]string{PortHeader: "22"}, 0}, "404"},
		"from a peer, the sidecar's admin port":           {split, "peers", request{map[string]string{PortHeader: "15602"}, 0}, "404"},
		"from a stranger without the header":              {split, "peers", request{host("10.0.0.9"), 0}, "404"},
		"from a peer, the header twice (joined by Envoy)": {split, "peers", request{map[string]string{PortHeader: "8080,8080"}, 0}, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := evaluate(t, translated(t, tc.w), tc.routes, tc.q); got != tc.want {
				t.Errorf("cluster %q, want %q", got, tc.want)
			}
		})
	}
}

// Every roll from 0 to 99 once: the share is exact, whatever the weight and whoever is the candidate.
func TestSharesAreExact(t *testing.T) {
	for weight := range uint32(101) {
		for _, peerIsStable := range []bool{false, true} {
			w := web(weight, "10.0.0.1")
			w.Split.PeerIsStable = peerIsStable
			r, toPeer := translated(t, w), uint32(0)
			for roll := range uint32(fullWeight) {
				if strings.HasPrefix(evaluate(t, r, "capture|8080", request{map[string]string{":authority": "web"}, roll}), "peer") {
					toPeer++
				}
			}
			if toPeer != weight {
				t.Errorf("weight %d, peer is stable %t: %d of 100 rolls go to the peer", weight, peerIsStable, toPeer)
			}
		}
	}
}

func TestUpgradesThatAreIgnored(t *testing.T) {
	ignored := regexp.MustCompile("^(?:" + otherUpgrades + ")$")
	for value, want := range map[string]bool{
		"websocket": false, "WebSocket": false, "SPDY/3.1": false, "tcp": false,
		"h2c": true, "TLS/1.2": true, "HTTP/2.0": true, "foo": true, "something": true,
	} {
		if got := ignored.MatchString(value); got != want {
			t.Errorf("Upgrade: %s ignored %t, want %t", value, got, want)
		}
	}
}
