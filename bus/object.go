package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// PutObject stores bytes under a name, weights or a checkpoint, and returns when
// the server holds all of them. An older object of that name is replaced. A full
// store gives forager.ErrFull. It ends after Config.Timeout and a second per MiB.
func (b *Bus) PutObject(ctx context.Context, name string, data []byte) error {
	ctx, cancel := b.transfer(ctx, len(data))
	defer cancel()
	_, err := b.objects.PutBytes(ctx, name, data)
	if err == nil {
		return nil
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeStoreFailed {
		err = forager.WithHint(forager.ErrFull, "raise the bus limit max_objects or keep fewer versions")
	}
	return fmt.Errorf("put object %s (%d bytes): %w", name, len(data), err)
}

// GetObject reads a whole object; its digest is checked on the way. A name that
// is not there gives forager.ErrNotFound. It is bounded like PutObject.
func (b *Bus) GetObject(ctx context.Context, name string) ([]byte, error) {
	asking, cancel := b.bounded(ctx)
	defer cancel()
	info, err := b.objects.GetInfo(asking, name)
	if err != nil {
		return nil, objectError("get", name, err)
	}
	ctx, cancel = b.transfer(ctx, int(info.Size))
	defer cancel()
	data, err := b.objects.GetBytes(ctx, name)
	if err != nil {
		return nil, objectError("get", name, err)
	}
	return data, nil
}

// DeleteObject removes an object. A name that is not there is no error.
func (b *Bus) DeleteObject(ctx context.Context, name string) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	err := objectError("delete", name, b.objects.Delete(ctx, name))
	if errors.Is(err, forager.ErrNotFound) {
		return nil
	}
	return err
}

// ListObjects gives the names of all objects, sorted.
func (b *Bus) ListObjects(ctx context.Context) ([]string, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	infos, err := b.objects.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name
	}
	slices.Sort(names)
	return names, nil
}

// DropObjects removes the objects whose names drop picks.
func (b *Bus) DropObjects(ctx context.Context, drop func(name string) bool) error {
	names, err := b.ListObjects(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if drop(name) {
			if err := b.DeleteObject(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func objectError(operation, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return fmt.Errorf("%s object %s: %w", operation, name, forager.ErrNotFound)
	case errors.Is(err, jetstream.ErrDigestMismatch):
		return fmt.Errorf("%s object %s: %w: %w", operation, name, forager.ErrCorrupt, err)
	}
	return fmt.Errorf("%s object %s: %w", operation, name, err)
}
