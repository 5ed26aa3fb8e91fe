// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package simulate

import (
	"context"
	"errors"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func newLike(o client.Object) client.Object {
	return reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
}

// fault is what happens to one write of a controller.
type fault string

// The faults.
const (
	faultRefuse      fault = "refuse"       // 500, and nothing was written
	faultConflict    fault = "conflict"     // 409, and nothing was written
	faultLose        fault = "lose"         // written, but the answer got lost
	faultLate        fault = "late"         // no answer, and written some time later
	faultCrashBefore fault = "crash-before" // the process dies before it writes
	faultCrashAfter  fault = "crash-after"  // the process dies after it has written
)

// crash is the panic of a process that dies.
type crash struct{}

var errNoAnswer = errors.New("the API server did not answer in time")

// apiClient is one process' client: it reads from the process' cache and writes to the API.
type apiClient struct {
	client.Client
	reader

	api *api
	by  string
	// fault waits for skip more writes.
	fault fault
	skip  int
	// failed counts writes that met a fault.
	failed int
	// late are writes that arrive later, arriving the one that does just now.
	late     []lateWrite
	arriving lateWrite
	// known is what the oracle notes about a write that is sent.
	known func() whenSent
	// tamper, if set, changes what is written, and says whether it is: a bug that is built in.
	tamper func(o client.Object) bool
}

// lateWrite is a write on its way.
type lateWrite struct {
	do func() error
	whenSent
}

// whenSent is how things stood when a write was sent, by which it is judged: by the time that it arrives they may be otherwise,
// and nobody can call it back.
type whenSent struct {
	mayGoOut string          // what the oracle said
	peers    map[string]bool // by version: the sender saw a pod that was ready but for the gate
}

// Get implements client.Client.
func (c *apiClient) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return c.reader.Get(ctx, key, o, opts...)
}

// List implements client.Client.
func (c *apiClient) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.reader.List(ctx, list, opts...)
}

func (c *apiClient) write(o client.Object, do func(client.Object) error) error {
	if c.tamper != nil && !c.tamper(o) {
		return nil
	}
	if c.fault == "" || c.skip > 0 {
		c.skip--
		return do(o)
	}
	f := c.fault
	c.fault = ""
	c.failed++
	switch f {
	case faultConflict:
		return apierrors.NewConflict(resource(o), o.GetName(), errors.New("somebody was faster"))
	case faultLose:
		if err := do(o.DeepCopyObject().(client.Object)); err != nil {
			return err
		}
		return errNoAnswer
	case faultLate:
		later := o.DeepCopyObject().(client.Object)
		c.late = append(c.late, lateWrite{func() error { return do(later) }, c.known()})
		return errNoAnswer
	case faultCrashAfter:
		if err := do(o); err != nil {
			panic(crash{})
		}
		panic(crash{})
	case faultCrashBefore:
		panic(crash{})
	}
	return apierrors.NewInternalError(errors.New("the API server is not well"))
}

// arrive lets writes take effect whose answer nobody waits for any more. What they meet is not known to
// anybody.
func (c *apiClient) arrive() {
	late := c.late
	c.late = nil
	for _, c.arriving = range late {
		_ = c.arriving.do()
	}
	c.arriving = lateWrite{}
}

// Create implements client.Client.
func (c *apiClient) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	return c.write(o, func(o client.Object) error { return c.api.create(c.by, o) })
}

// Update implements client.Client.
func (c *apiClient) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	return c.write(o, func(o client.Object) error { return c.api.update(c.by, o, false) })
}

// Patch implements client.Client.
func (c *apiClient) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	return c.write(o, func(o client.Object) error { return c.api.patch(c.by, o, p, false) })
}

// Delete implements client.Client.
func (c *apiClient) Delete(_ context.Context, o client.Object, opts ...client.DeleteOption) error {
	var d client.DeleteOptions
	d.ApplyOptions(opts)
	var p *metav1.Preconditions
	if d.Preconditions != nil {
		p = d.Preconditions
	}
	return c.write(o, func(o client.Object) error { return c.api.remove(c.by, o, p) })
}

// Status implements client.Client.
func (c *apiClient) Status() client.SubResourceWriter { return statusClient{c: c} }

type statusClient struct {
	client.SubResourceWriter

	c *apiClient
}

// Update implements client.SubResourceWriter.
func (s statusClient) Update(_ context.Context, o client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.c.write(o, func(o client.Object) error { return s.c.api.update(s.c.by, o, true) })
}

// Patch implements client.SubResourceWriter.
func (s statusClient) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.c.write(o, func(o client.Object) error { return s.c.api.patch(s.c.by, o, p, true) })
}

// liveReader reads what the API server has now.
type liveReader struct{ api *api }

// Get implements client.Reader.
func (r liveReader) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return reader{r.api.memory}.Get(ctx, key, o, opts...)
}

// List implements client.Reader.
func (r liveReader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return reader{r.api.memory}.List(ctx, list, opts...)
}

// until is a moment up to which something stands still.
type until map[kind]time.Time
