// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/load"
)

// controlPort is where a client is asked for its report.
const controlPort = "8081"

// LoadPod is a pod that runs the client. It bears no label that a Service or policy could select, and
// no owner.
func LoadPod(name string, c load.Config) *corev1.Pod {
	args := []string{
		"load", "--control=:" + controlPort, "--host=" + c.Host, "--authority=" + c.Authority,
		"--http-port=" + strconv.Itoa(c.HTTPPort), "--grpc-port=" + strconv.Itoa(c.GRPCPort),
		"--rates=" + load.FormatRates(c.Rates), "--duration=" + c.Duration.String(),
		"--requests=" + strconv.FormatInt(c.Requests, 10), "--timeout=" + c.Timeout.String(),
		"--slow-for=" + c.SlowFor.String(), "--stream-for=" + c.StreamFor.String(),
	}
	grace := int64(60) // requests that were begun are counted to their end
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"headgate-e2e-load": name}},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "load", Image: AppImage + "v1", Args: args,
				// A share of the processor even when builds run beside the tests: a client that waits for
				// it would count its own lateness.
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")}},
				// Ready: it has sent something.
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
					HTTPGet: &corev1.HTTPGetAction{Path: "/report", Port: intstr.Parse(controlPort)},
				}},
			}},
		},
	}
}

// Load is a client that runs in the cluster.
type Load struct {
	c        *Case
	pod      string
	kinds    []load.Kind
	tokens   int64
	stopped  bool
	released bool
}

// AllKinds is a mix of everything that users may send, at about 30 requests a second in all.
func AllKinds() map[load.Kind]float64 {
	return map[load.Kind]float64{
		load.KindHTTP1: 12, load.KindNew: 6, load.KindH2C: 4, load.KindGRPC: 6, load.KindSlow: 1, load.KindStream: 1,
	}
}

// ToService is the configuration of a client of the workload's Service.
func ToService(rates map[load.Kind]float64) load.Config {
	return load.Config{
		Host: Name, HTTPPort: 80, GRPCPort: 9090, Rates: rates,
		Duration: 15 * time.Minute, Timeout: 15 * time.Second, SlowFor: 8 * time.Second, StreamFor: 5 * time.Second,
	}
}

// ToPods is the configuration of a client that balances over the ready pods itself.
func ToPods(rates map[load.Kind]float64) load.Config {
	c := ToService(rates)
	c.Host, c.HTTPPort, c.Authority = Name+"-pods", 8080, Name
	return c
}

// ToPod is the configuration of a client of one pod, as a load balancer that knows pods would be: the
// Host header is the Service's.
func ToPod(ip string, rates map[load.Kind]float64) load.Config {
	c := ToPods(rates)
	c.Host = ip
	return c
}

// NamedConfig is a client to start; names are unique in a case.
type NamedConfig struct {
	Name   string
	Config load.Config
}

// StartLoad is StartLoads for one client.
func (c *Case) StartLoad(name string, config load.Config) *Load {
	c.T.Helper()
	return c.StartLoads(NamedConfig{name, config})[0]
}

// StartLoads starts clients as soon as the rates of all cases' clients leave room for them together,
// and returns when each has sent something. A case that has clients must stop them before it starts
// more: cases that hold some of the room and wait for more would wait for each other.
func (c *Case) StartLoads(configs ...NamedConfig) []*Load {
	c.T.Helper()
	var loads []*Load
	total := int64(0)
	for _, n := range configs {
		l := &Load{c: c, pod: "load-" + n.Name, kinds: slices.Sorted(maps.Keys(n.Config.Rates)), tokens: tokens(n.Config)}
		loads, total = append(loads, l), total+l.tokens
	}
	if err := c.rate.Acquire(c.Ctx, total); err != nil {
		c.T.Fatalf("waiting for room for %d requests a second: %v", total, err)
	}
	c.loads = append(c.loads, loads...)
	for i, n := range configs {
		pod := LoadPod(loads[i].pod, n.Config)
		pod.Namespace = c.Namespace
		if err := c.Client.Create(c.Ctx, pod); err != nil {
			c.T.Fatalf("creating client %q: %v", pod.Name, err)
		}
	}
	for _, l := range loads {
		l.awaitPod("it sends", func(p *corev1.Pod) bool { return Ready(p) || p.Status.Phase == corev1.PodSucceeded })
	}
	return loads
}

// tokens are what a client takes of the room for all.
func tokens(c load.Config) int64 {
	total := 0.0
	for _, r := range c.Rates {
		total += r
	}
	return int64(math.Ceil(total))
}

// Report is the counts so far.
func (l *Load) Report() load.Report {
	l.c.T.Helper()
	out, err := l.c.Kube.CoreV1().Pods(l.c.Namespace).ProxyGet("http", l.pod, controlPort, "report", nil).DoRaw(l.c.Ctx)
	if err != nil {
		l.c.T.Fatalf("asking client %q for its report: %v", l.pod, err)
	}
	return l.parse(out)
}

// Await waits until the counts are as asked; they are looked at twice a second.
func (l *Load) Await(within time.Duration, what string, ok func(load.Report) bool) {
	l.c.T.Helper()
	l.c.Await(within, fmt.Sprintf("client %q: %s", l.pod, what), func(ctx context.Context) error {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for !ok(l.Report()) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
		return nil
	})
}

// Stop ends the client and returns all that it counted.
func (l *Load) Stop() load.Report {
	l.c.T.Helper()
	if l.stopped {
		return l.logged()
	}
	l.stopped = true
	defer l.release()
	ctx, cancel := context.WithTimeout(l.c.Ctx, 90*time.Second)
	defer cancel()
	out, err := l.c.Kube.CoreV1().RESTClient().Post().Namespace(l.c.Namespace).Resource("pods").
		Name("http:" + l.pod + ":" + controlPort).SubResource("proxy").Suffix("stop").DoRaw(ctx)
	if err != nil { // it may have ended by itself just now
		return l.Wait()
	}
	return l.whole(l.parse(out))
}

// whole checks that a client has sent requests of each kind that it was asked for: nothing fails of what nobody sends.
func (l *Load) whole(r load.Report) load.Report {
	l.c.T.Helper()
	for _, kind := range l.kinds {
		if r.Kinds[kind].Sent == 0 {
			l.c.T.Errorf("%s sent no %s request", l.pod, kind)
		}
	}
	return r
}

// Wait returns all that the client counted, when it has ended by itself.
func (l *Load) Wait() load.Report {
	l.c.T.Helper()
	defer l.release()
	l.stopped = true
	l.awaitPod("it ends", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	return l.whole(l.logged())
}

// logged reads the final report from the pod's output.
func (l *Load) logged() load.Report {
	l.c.T.Helper()
	lines := int64(3)
	all := l.output(&lines)
	r := all[len(all)-1]
	if !r.Final {
		l.c.T.Fatalf("client %q ended without a final report: %+v", l.pod, r)
	}
	return r
}

// Reports are all that the client has printed: one for each second.
func (l *Load) Reports() []load.Report {
	l.c.T.Helper()
	return l.output(nil)
}

// output reads the pod's last lines (nil: all), at least one.
func (l *Load) output(last *int64) []load.Report {
	l.c.T.Helper()
	out, err := l.c.Kube.CoreV1().Pods(l.c.Namespace).GetLogs(l.pod, &corev1.PodLogOptions{TailLines: last}).DoRaw(l.c.Ctx)
	if err != nil || len(out) == 0 {
		l.c.T.Fatalf("reading the output of client %q: %v: %q", l.pod, err, out)
	}
	var all []load.Report
	for line := range bytes.Lines(out) {
		all = append(all, l.parse(line))
	}
	return all
}

func (l *Load) parse(line []byte) load.Report {
	l.c.T.Helper()
	var r load.Report
	if err := json.Unmarshal(line, &r); err != nil {
		l.c.T.Fatalf("parsing the report of client %q: %v: %q", l.pod, err, line)
	}
	return r
}

func (l *Load) awaitPod(what string, ok func(*corev1.Pod) bool) {
	l.c.T.Helper()
	l.c.Await(10*time.Minute, fmt.Sprintf("client %q: %s", l.pod, what), func(ctx context.Context) error {
		opts := append(l.c.in(), client.MatchingFields{"metadata.name": l.pod})
		return Follow(ctx, l.c.Client, Selected{&corev1.PodList{}, opts}, func(state map[types.UID]*corev1.Pod) bool {
			p, there := one(state, l.pod)
			return there && ok(p)
		})
	})
}

// release gives the rate back to others; more than once does no harm.
func (l *Load) release() {
	if !l.released {
		l.released = true
		l.c.rate.Release(l.tokens)
	}
}
