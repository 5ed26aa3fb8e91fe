// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/headgate/headgate/analysis"
	"github.com/headgate/headgate/analysis/prometheus"
	"github.com/headgate/headgate/api/v1alpha1"
	"github.com/headgate/headgate/replay"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }

// weight is one that came into force a moment after this second, because of a look then.
func weight(since, step, weight int) v1alpha1.WeightRecord {
	return v1alpha1.WeightRecord{Since: metav1.NewMicroTime(at(since).Add(300 * time.Millisecond)), Step: int32(step), Weight: int32(weight)}
}

// ended is a rollout that ended in that second.
func ended(from, to string, start, end int, weights ...v1alpha1.WeightRecord) v1alpha1.HistoryEntry {
	return v1alpha1.HistoryEntry{From: from, To: to, StartedAt: metav1.NewTime(at(start)), EndedAt: metav1.NewTime(at(end)), Weights: weights}
}

// counted is a Prometheus by which 100 requests came in each look; half of the candidate's failed after 40 s.
type counted struct {
	asked *[]prometheus.Span
	empty bool
}

func (c counted) Past(_ context.Context, t prometheus.Target, span prometheus.Span) (out []analysis.Look, _ error) {
	*c.asked = append(*c.asked, span)
	for now := span.From; !now.After(span.To); now = now.Add(span.Every) {
		look := analysis.Look{Time: now, Missing: c.empty, Candidate: map[string]analysis.Counts{}, Stable: map[string]analysis.Counts{t.Stable + "-1": {Requests: 900}}}
		during := now.Sub(began)
		if during >= 40*time.Second {
			look.Candidate[t.Stable+"-1"] = analysis.Counts{Requests: 100, Errors: 50}
		} else if during >= 20*time.Second {
			look.Candidate[t.Stable+"-1"] = analysis.Counts{Requests: 100}
		}
		if during >= 20*time.Second {
			look.CandidatePods = 2
		}
		out = append(out, look)
	}
	return out, nil
}

func TestExport(t *testing.T) {
	underWay := v1alpha1.RolloutStatus{
		Phase: v1alpha1.PhaseStepping, Stable: v1alpha1.Revision{Hash: "v2"}, Candidate: v1alpha1.Revision{Hash: "v3"}, StartedAt: &metav1.MicroTime{Time: at(0)},
		Weights: []v1alpha1.WeightRecord{weight(10, 0, 10), weight(30, 1, 25)},
		History: []v1alpha1.HistoryEntry{ended("v1", "v2", -600, -300, weight(-590, 0, 10), weight(-400, 1, 50))},
	}
	over := underWay
	over.Phase = v1alpha1.PhaseQuarantined
	over.History = append(over.History[:1:1], ended("v2", "v3", 0, 60, append(underWay.Weights, weight(50, 1, 0))...))
	between := over
	between.History = append(over.History[:1:1], ended("v2", "v3", 0, 53, underWay.Weights...))
	back := over
	back.Phase, back.Weights = v1alpha1.PhaseRollingBack, append(underWay.Weights, weight(50, 1, 0))
	again := underWay
	again.History = append(over.History, ended("v2", "bad", 60, 90))
	again.Candidate.Hash, again.StartedAt = "v4", &metav1.MicroTime{Time: at(90)}
	again.Weights = []v1alpha1.WeightRecord{weight(95, 0, 10)}
	untried := underWay
	untried.Weights = nil
	for name, tc := range map[string]struct {
		status v1alpha1.RolloutStatus
		back   int
		now    int
		empty  bool
		asked  []prometheus.Span
		looks  []string // some of the lines
		err    string
	}{
		"one under way ends now": {status: underWay,
			asked: []prometheus.Span{{From: at(-300), To: at(0), Every: time.Minute}, {From: at(5), To: at(45), Every: 5 * time.Second}},
			looks: []string{
				`{"time":-300,"weight":0,"step":0,"rollout":{"stable":"v2","candidate":"v3"},"candidatePods":0,"candidate":{},"stable":{"v2-1":{"requests":900,"errors":0}}}`,
				`{"time":10,"weight":0,"step":0,"candidatePods":0,"candidate":{},`, `{"time":15,"weight":10,"step":0,`, `{"time":30,"weight":10,"step":0,`,
				`{"time":35,"weight":25,"step":1,"since":30.3,"judged":0,"candidatePods":2,"candidate":{"v2-1":{"requests":100,"errors":0}}`, `{"time":45,"weight":25,"step":1,"since":30.3,"judged":0,"candidatePods":2,"candidate":{"v2-1":{"requests":100,"errors":50}}`,
			},
		},
		"one that is over": {status: over,
			asked: []prometheus.Span{{From: at(-300), To: at(0), Every: time.Minute}, {From: at(5), To: at(60), Every: 5 * time.Second}},
			looks: []string{`{"time":50,"weight":25,"step":1,`, `{"time":55,"weight":0,"step":1,`, `{"time":60,"weight":0,"step":1,`},
		},
		"one after others that came to nothing": {status: again, now: 100,
			asked: []prometheus.Span{{From: at(-300), To: at(90), Every: time.Minute}, {From: at(95), To: at(100), Every: 5 * time.Second}},
			looks: []string{`{"time":5,"weight":0,"step":0,`, `{"time":10,"weight":10,"step":0,`},
		},
		"one that failed between two seconds": {status: between,
			asked: []prometheus.Span{{From: at(-300), To: at(0), Every: time.Minute}, {From: at(5), To: at(50), Every: 5 * time.Second}},
			looks: []string{`{"time":45,"weight":25,"step":1,`, `{"time":50,"weight":25,"step":1,`},
		},
		"one that goes back is over": {status: back,
			asked: []prometheus.Span{{From: at(-300), To: at(0), Every: time.Minute}, {From: at(5), To: at(60), Every: 5 * time.Second}},
			looks: []string{`{"time":60,"weight":0,"step":1,`},
		},
		"the one before it": {status: over, back: 1,
			asked: []prometheus.Span{{From: at(-600 - 1800), To: at(-600), Every: time.Minute}, {From: at(-595), To: at(-300), Every: 5 * time.Second}},
			looks: []string{`{"time":10,"weight":0,"step":0,`, `{"time":15,"weight":10,"step":0,`, `{"time":300,"weight":50,"step":1,`},
		},
		"none that old":                    {status: over, back: 2, err: "it has 2 rollouts on record; expected from 0, the newest, to 1"},
		"none at all":                      {err: "it has had no rollout yet"},
		"one without requests":             {status: untried, err: "has no weight on record: the candidate got no requests, or an earlier version"},
		"one that Prometheus knows not of": {status: over, empty: true, err: "nothing is known to Prometheus of the rollout from v2 to v3 at 2026-03-01T12:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			asked := []prometheus.Span{}
			o := options(t, &v1alpha1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Status: tc.status})
			o.Now = at(max(tc.now, 45))
			o.Prometheus, o.Back, o.Out = counted{&asked, tc.empty}, tc.back, &out
			err := Run(t.Context(), o)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.asked, asked); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			for _, line := range tc.looks {
				if !strings.Contains("\n"+out.String(), "\n"+line) {
					t.Errorf("there is no line %s in\n%s", line, &out)
				}
			}
			if err := replay.Run(&out, &bytes.Buffer{}, replay.Options{}); err != nil {
				t.Errorf("it can't be replayed: %v", err)
			}
		})
	}
}

func options(t *testing.T, records ...*v1alpha1.Rollout) Options {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	b := fake.NewClientBuilder().WithScheme(scheme)
	for _, r := range records {
		b = b.WithObjects(r)
	}
	return Options{Client: b.Build(), Namespace: "shop", Name: "web", Before: 30 * time.Minute, Now: at(45)}
}

func TestAWorkloadWithoutARecord(t *testing.T) {
	if err := Run(t.Context(), options(t)); err == nil || !strings.Contains(err.Error(), "there is no Rollout shop/web: expected the name of a Deployment") {
		t.Errorf("got %v", err)
	}
}

func TestAPrometheusInTheCluster(t *testing.T) {
	var path, authorization string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, authorization = r.URL.Path, r.Header.Get("Authorization")
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	}))
	defer api.Close()
	c, err := Connect("monitoring/prometheus-k8s:web", &rest.Config{Host: api.URL, BearerToken: "somebody"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Past(t.Context(), prometheus.Target{Namespace: "shop", Workload: "web"}, prometheus.Span{From: at(0), To: at(60), Every: time.Second}); err != nil {
		t.Fatal(err)
	}
	if path != "/api/v1/namespaces/monitoring/services/http:prometheus-k8s:web/proxy/api/v1/query_range" || authorization != "Bearer somebody" {
		t.Errorf("asked %s with %q", path, authorization)
	}
	for _, wrong := range []string{"", "prometheus", "monitoring/prometheus", "a/b/c:1", "monitoring/../secrets:1"} {
		if _, err := Connect(wrong, &rest.Config{Host: api.URL}, nil); err == nil || !strings.Contains(err.Error(), "expected a URL, or NAMESPACE/SERVICE:PORT") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// What a Prometheus asks for comes from a Secret or from files, and goes to its URL alone.
func TestAPrometheusThatAsksWhoYouAre(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" || r.Header.Get("X-Scope-OrgID") != "shop" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	}))
	defer server.Close()
	data := map[string][]byte{
		"token": []byte("t0ken\n"), "header.X-Scope-OrgID": []byte("shop\n"),
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	c := fake.NewClientBuilder().WithObjects(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "mimir"}, Data: data}).Build()
	volume := t.TempDir() // as a Secret is mounted: links to files in a directory
	if err := os.Mkdir(filepath.Join(volume, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	for key, value := range data {
		if err := os.WriteFile(filepath.Join(volume, "..data", key), value, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", key), filepath.Join(volume, key)); err != nil {
			t.Fatal(err)
		}
	}
	secret := func(name string) prometheus.ReadSecret {
		read, err := Secret(c, name)
		if err != nil {
			t.Fatal(err)
		}
		return read
	}
	for name, tc := range map[string]struct {
		credentials prometheus.ReadSecret
		want        string // part of the error; empty: none
	}{
		"a Secret":                      {secret("shop/mimir"), ""},
		"a Secret that is not there":    {secret("shop/thanos"), `reading Secret "shop/thanos"`},
		"files":                         {Directory(volume), ""},
		"a directory that is not there": {Directory(filepath.Join(volume, "none")), "reading the credentials"},
		"a directory without any":       {Directory(t.TempDir()), "it has none of the keys"},
		"nothing":                       {nil, "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			prom, err := Connect(server.URL, &rest.Config{}, tc.credentials)
			if err != nil {
				t.Fatal(err)
			}
			_, err = prom.Past(t.Context(), prometheus.Target{Namespace: "shop", Workload: "web"}, prometheus.Span{From: at(0), To: at(60), Every: time.Second})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := Connect("monitoring/prometheus:web", &rest.Config{}, secret("shop/mimir")); err == nil || !strings.Contains(err.Error(), "credentials need its URL") {
		t.Errorf("through the API server: %v", err)
	}
	for _, wrong := range []string{"", "mimir", "shop/", "/mimir"} {
		if _, err := Secret(c, wrong); err == nil || !strings.Contains(err.Error(), "expected NAMESPACE/NAME") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// What keeps somebody from reaching the Prometheus in the cluster is said with what to do.
func TestAPrometheusThatCannotBeReached(t *testing.T) {
	status := func(code int, message string) string {
		return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"code":%d}`, message, code)
	}
	for name, tc := range map[string]struct {
		post, get int
		body      string
		want      string // part of the error; empty: none
	}{
		"there is none":           {404, 404, status(404, `services "prometheus" not found`), "asking Prometheus: there is no Service monitoring/prometheus; give --prometheus URL"},
		"who may only get":        {403, 200, status(403, "forbidden"), ""},
		"who may not":             {403, 403, status(403, "forbidden"), "you may not reach Service monitoring/prometheus through the API server, which takes the right to get services/proxy"},
		"without pods":            {503, 503, status(503, "no endpoints available"), "Service monitoring/prometheus has no pod that is ready, or not that port (no endpoints available)"},
		"something else":          {500, 500, status(500, "etcd is away"), "the API server can't reach Service monitoring/prometheus: etcd is away"},
		"a Prometheus that is no": {404, 404, "404 page not found", "client error: 404"},
	} {
		t.Run(name, func(t *testing.T) {
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				code := tc.get
				if r.Method == http.MethodPost {
					code = tc.post
				}
				w.WriteHeader(code)
				body := tc.body
				if code == 200 {
					body = `{"status":"success","data":{"resultType":"matrix","result":[]}}`
				}
				fmt.Fprint(w, body)
			}))
			defer api.Close()
			prom, err := Connect("monitoring/prometheus:web", &rest.Config{Host: api.URL}, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Options{Prometheus: prom}.past(t.Context(), prometheus.Target{Namespace: "shop", Workload: "web"}, prometheus.Span{From: at(0), To: at(60), Every: time.Second})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
