// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/analysis"
)

// Config is how to reach a Prometheus. Only URL has no default.
type Config struct {
	// URL is the base address, without /api/v1.
	URL string
	// Transport carries credentials and trust. Default: http.DefaultTransport, which closes idle
	// connections: addresses that policies name come and go.
	Transport http.RoundTripper
	// MaxCounters is how many bytes an answer with counters may have; a series takes about 300, and ten
	// times as much memory. Default 16 MiB, for the installation's own address: 50,000 series.
	MaxCounters int64
	// QueryTimeout bounds one query. Default 2 s.
	QueryTimeout time.Duration
	// BatchTimeout bounds all queries of a look. Default 4 s: a look must end before the next.
	BatchTimeout time.Duration
	// StaleAfter is how old a workload's newest scrape may be. Default 30 s, half of what makes the
	// analysis blind.
	StaleAfter time.Duration
}

const (
	defaultQueryTimeout = 2 * time.Second
	defaultBatchTimeout = 4 * time.Second
	defaultStaleAfter   = 30 * time.Second

	defaultMaxCounters = 16 << 20
	// seriesSize is about how many bytes a series takes in an answer.
	seriesSize = 300
	// counterSize is for how many bytes of an answer's limit it may hold a counter. A native histogram is many of them in
	// few bytes: without it, what an answer may take in memory would not follow from its size.
	counterSize = seriesSize / 4
	// maxMetric bounds the answer to a user's query, which holds one number.
	maxMetric = 64 << 10
	// lanes is how many namespaces' queries run at once. Within a namespace they run one by one, so
	// that one tenant's slow queries take one lane and no other tenant's time.
	lanes = 16
)

// MaxNamedCounters is MaxCounters for an address that a policy names: whoever may write a policy decides
// what answers there, and many such addresses are asked at once. 1 MiB is about 3,000 series, which is 70 pods
// with one port, or 200 whose latency is not judged.
const MaxNamedCounters = 1 << 20

// Client asks one Prometheus. It remembers the last values of the counters, so it must live as long as
// the rollouts it looks at; after a restart the first look is a missing one.
type Client struct {
	counters, metrics v1.API
	// share asks for one namespace's counters when those of all could not be had at once, and for the past.
	share  v1.API
	config Config

	mu     sync.Mutex // one look at a time
	memory memory
	users  users

	large sync.Mutex // one large answer about the past at a time
}

// New makes a client. It does not connect. ErrAddress says that the URL can't be used.
func New(c Config) (*Client, error) {
	if err := CheckAddress(c.URL); err != nil {
		return nil, err
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.QueryTimeout = orDefault(c.QueryTimeout, defaultQueryTimeout)
	c.BatchTimeout = orDefault(c.BatchTimeout, defaultBatchTimeout)
	c.StaleAfter = orDefault(c.StaleAfter, defaultStaleAfter)
	if c.MaxCounters <= 0 {
		c.MaxCounters = defaultMaxCounters
	}
	counters, err := newAPI(c, c.MaxCounters)
	if err != nil {
		return nil, err
	}
	share, err := newAPI(c, c.MaxCounters/shareLanes) // together no more than one answer for all
	if err != nil {
		return nil, err
	}
	metrics, err := newAPI(c, maxMetric)
	if err != nil {
		return nil, err
	}
	out := &Client{counters: counters, share: share, metrics: metrics, config: c}
	out.memory.room = int(c.MaxCounters / seriesSize)
	// Of two answers each may be StaleAfter old.
	out.memory.lag = 2 * c.StaleAfter
	return out, nil
}

func newAPI(c Config, limit int64) (v1.API, error) {
	client, err := api.NewClient(api.Config{Address: c.URL, RoundTripper: limitedTransport{next: strictTransport{c.Transport}, max: limit}})
	if err != nil {
		return nil, fmt.Errorf("making a Prometheus client: %w", err)
	}
	return v1.NewAPI(client), nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

// Looks makes one look at every target, in their order. at must rise from call to call. The error says
// why counters are missing, for a log: the Looks are complete and usable with it.
func (c *Client) Looks(ctx context.Context, at time.Time, targets []Target) ([]analysis.Look, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(targets) == 0 {
		c.memory, c.users = c.memory.forgotten(), users{}
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.BatchTimeout)
	defer cancel()

	out, moment, err := c.count(ctx, at, targets)
	// Only then: users' queries may be expensive, and must not slow down the one that everybody needs.
	for i, v := range c.values(ctx, at, moment, targets) {
		out[i].Metrics = v
	}
	return out, err
}

// count asks for the counters. moment is by Prometheus' clock when it answered; zero: it had no answer.
func (c *Client) count(ctx context.Context, at time.Time, targets []Target) (out []analysis.Look, moment time.Time, err error) {
	vector, unknown, err := c.ask(ctx, targets)
	if len(vector) > 0 {
		moment = vector[0].Timestamp.Time()
	}
	if len(unknown) == len(byNamespace(targets)) {
		out = make([]analysis.Look, len(targets)) // and the memory stays as it is
	} else {
		c.memory, out = c.memory.look(at, targets, parse(vector), c.config.StaleAfter)
	}
	for i, t := range targets {
		if why, ok := unknown[t.Namespace]; ok {
			out[i] = t.MissingLook(at, missing(why))
		}
	}
	return out, moment, err
}

// send sends a query about a moment; the zero time: now, by Prometheus' own clock, whatever ours says.
func send(ctx context.Context, api v1.API, query string, at time.Time, timeout time.Duration) (model.Value, v1.Warnings, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, warnings, err := api.Query(ctx, query, at, v1.WithTimeout(timeout))
	if err != nil {
		return nil, nil, err
	}
	if vector, ok := v.(model.Vector); ok && slices.Contains(vector, nil) {
		return nil, nil, errNull
	}
	return v, warnings, nil
}

// errNull: JSON's null where an answer has elements, which no Prometheus says. But an address that a policy names may be anything.
var errNull = errors.New("an element of the result is null")

// samples sends a query for counters, of which there may be so many.
func samples(ctx context.Context, api v1.API, query string, timeout time.Duration, most int64) (model.Vector, error) {
	v, warnings, err := send(ctx, api, query, time.Time{}, timeout)
	if err != nil {
		return nil, fmt.Errorf("querying request counters: %w", err)
	}
	out, err := whole[model.Vector](v, warnings)
	if err != nil {
		return nil, fmt.Errorf("querying request counters: %w", err)
	}
	if unfolded(out) > most {
		return nil, fmt.Errorf("querying request counters: %w", errTooLarge)
	}
	return out, nil
}

// whole is an answer of one kind, all of it: of a part, counters would vanish and come back.
func whole[T model.Value](v model.Value, warnings v1.Warnings) (out T, err error) {
	if len(warnings) > 0 {
		return out, fmt.Errorf("partial answer: %s", strings.Join(warnings, "; "))
	}
	out, ok := v.(T)
	if !ok {
		return out, fmt.Errorf("answer is a %s", v.Type())
	}
	return out, nil
}

func about(targets []Target) asked {
	a := make(asked, len(targets))
	for _, t := range targets {
		a[t.key()] = t.Created
	}
	return a
}

// values asks for the users' metrics of all targets, as they were at one moment: what is compared or divided must not
// have a scrape between them.
func (c *Client) values(ctx context.Context, at, moment time.Time, targets []Target) [][]analysis.MetricValue {
	out := make([][]analysis.MetricValue, len(targets))
	due := c.users.due(at, targets)
	read := make([]map[string]reads, len(targets))
	var group errgroup.Group
	group.SetLimit(lanes)
	for _, indices := range byNamespace(targets) {
		group.Go(func() error {
			for _, i := range indices {
				read[i] = map[string]reads{}
				for _, q := range targets[i].Metrics {
					if due[targets[i].metric(q)] {
						read[i][q.Name] = c.read(ctx, moment, q, targets[i])
					}
				}
			}
			return nil
		})
	}
	_ = group.Wait() // no lane returns an error
	for i, t := range targets {
		for _, q := range t.Metrics {
			out[i] = append(out[i], c.users.value(at, t, q, read[i][q.Name]))
		}
	}
	return out
}

// evaluate sends one of the users' queries; a partial answer is none. Without a moment Prometheus' own clock decides.
func (c *Client) evaluate(ctx context.Context, moment time.Time, expression string, t Target) (model.Value, error) {
	rendered, err := Render(expression, t)
	if err != nil {
		return nil, err
	}
	v, warnings, err := send(ctx, c.metrics, rendered, moment, c.config.QueryTimeout)
	if err != nil {
		return nil, reason(err)
	}
	return whole[model.Value](v, warnings)
}

// ErrBadQuery: Prometheus can't parse or evaluate the query as it is written.
var ErrBadQuery = errors.New("bad query")

// Check asks Prometheus about a user's query before anything depends on it, of a rate about both. ErrBadQuery says that the
// query is wrong, with Prometheus' own words where it has some; ErrAccess, that it would not be asked; other errors, that
// nobody could say.
func (c *Client) Check(ctx context.Context, q Query) error {
	if q.Denominator == "" {
		return c.check(ctx, q.Expression, noNumber)
	}
	for _, part := range []struct{ name, expression string }{{"numerator", q.Expression}, {"denominator", q.Denominator}} {
		if err := c.check(ctx, part.expression, noCounters); err != nil {
			return fmt.Errorf("its %s: %w", part.name, err)
		}
	}
	return nil
}

// check asks about one query, of which unfit says what is wrong with results of its kind; empty: nothing.
func (c *Client) check(ctx context.Context, expression string, unfit func(model.ValueType) string) error {
	rendered, err := Render(expression, Target{Namespace: "default", Workload: "web", Candidate: "1", Stable: "0"})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadQuery, err)
	}
	v, _, err := send(ctx, c.metrics, rendered, time.Time{}, c.config.QueryTimeout)
	var bad *v1.Error
	switch {
	case errors.As(err, &bad) && (bad.Type == v1.ErrBadData || bad.Type == v1.ErrExec):
		return fmt.Errorf("%w: %s", ErrBadQuery, bad.Msg)
	case err != nil:
		return reason(err)
	}
	if why := unfit(v.Type()); why != "" {
		return fmt.Errorf("%w: %s", ErrBadQuery, why)
	}
	return nil
}

// noNumber says why what a query gives is never one number, whatever it is asked about, and noCounters why it is never a list
// of counters; empty: it may be.
func noNumber(kind model.ValueType) string {
	if kind == model.ValMatrix {
		return "it gives values over time (a range vector), and one value is needed: put a function such as avg_over_time around it"
	}
	return ""
}

func noCounters(kind model.ValueType) string {
	switch kind {
	case model.ValMatrix:
		return "it gives values over time (a range vector), and counters are needed as they are: leave out the range in brackets"
	case model.ValScalar:
		return "it gives one number (a scalar), and counters are needed, of which there may be several or none: leave out scalar(), " +
			"or select series instead of writing a number"
	}
	return ""
}

// reason is an error without the address, which is none of a tenant's business, and without the body.
func reason(err error) error {
	var bad *v1.Error
	switch {
	case errors.As(err, &bad):
		return fmt.Errorf("%s: %s", bad.Type, bad.Msg)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.Is(err, errTooLarge):
		return errTooLarge
	case errors.Is(err, errNull):
		return errNull
	case access(err) != "":
		return fmt.Errorf("%w: %s", ErrAccess, access(err))
	}
	return errors.New("no connection to Prometheus")
}
