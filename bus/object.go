package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/forager-rl/forager"
)

// An object lies in its store as ADR-20 of NATS lays it out, the same for all
// clients: its bytes in chunks on a subject of their own, then a message that
// describes them. Reading and deleting is the library's. Writing is not: the
// library sends up to 4,000 chunks ahead of the server, which refuses what
// exceeds 128 MB.
const (
	chunkBytes  = 1 << 20 // of one chunk, unless the server takes less; fewer chunks cost less
	chunksAhead = 32      // sent and not yet stored
)

// PutObject stores bytes under a name, weights or a checkpoint, and returns when
// the server holds all of them. An older object of that name is replaced. A full
// store gives forager.ErrFull. It ends after Config.Timeout and a second per MiB.
func (b *Bus) PutObject(ctx context.Context, name string, data []byte) error {
	ctx, cancel := b.transfer(ctx, len(data))
	defer cancel()
	err := b.putObject(ctx, name, data)
	if err == nil {
		return nil
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeStoreFailed {
		err = forager.WithHint(forager.ErrFull, "raise the bus limit max_objects or keep fewer versions")
	}
	return fmt.Errorf("put object %s (%d bytes): %w", name, len(data), err)
}

func (b *Bus) putObject(ctx context.Context, name string, data []byte) error {
	store, err := b.store(name)
	if err != nil {
		return err
	}
	old, err := store.GetInfo(ctx, name)
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return err
	}
	bucket, size := b.names.bucket(name), int(min(chunkBytes, b.conn.MaxPayload()))
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(size)}},
		Bucket:     bucket, NUID: rand.Text(),
		Size: uint64(len(data)), Chunks: uint32((len(data) + size - 1) / size),
	}
	digest := make(chan [sha256.Size]byte, 1)
	go func() { digest <- sha256.Sum256(data) }()
	err = b.putChunks(ctx, chunks(bucket, info.NUID), data, size)
	sum := <-digest
	if err == nil {
		info.Digest = storedDigest(sum[:])
		err = b.putInfo(ctx, &info)
	}
	switch {
	case err != nil:
		b.purgeChunks(bucket, info.NUID)
	case old != nil:
		b.purgeChunks(bucket, old.NUID)
	}
	return err
}

// putChunks sends the bytes in order, the next as earlier ones are stored. It
// returns when none is on its way.
func (b *Bus) putChunks(ctx context.Context, subject string, data []byte, size int) (failed error) {
	var sent []jetstream.PubAckFuture
	settle := func() {
		var err error
		select {
		case <-sent[0].Ok():
		case err = <-sent[0].Err():
		case <-ctx.Done():
			err = ctx.Err()
		}
		sent = sent[1:]
		failed = cmp.Or(failed, err)
	}
	for chunk := range slices.Chunk(data, size) {
		if len(sent) == chunksAhead {
			settle()
		}
		if failed != nil {
			break
		}
		future, err := b.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: chunk})
		if err != nil {
			failed = err
			break
		}
		sent = append(sent, future)
	}
	for len(sent) > 0 {
		settle()
	}
	return failed
}

// putInfo makes stored chunks an object, in place of an older one of its name.
func (b *Bus) putInfo(ctx context.Context, info *jetstream.ObjectInfo) error {
	data, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("encode description: %w", err)
	}
	msg := nats.NewMsg(description(info.Bucket, info.Name))
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	msg.Data = data
	_, err = b.js.PublishMsg(ctx, msg)
	return err
}

// purgeChunks frees the room of chunks that no object has any more. What stays
// after a failure is only room.
func (b *Bus) purgeChunks(bucket, nuid string) {
	ctx, cancel := b.bounded(context.Background())
	defer cancel()
	stream, err := b.js.Stream(ctx, objects(bucket))
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(chunks(bucket, nuid)))
	}
	if err != nil {
		b.log.Warn("bus: chunks of no object stay in the store", "error", err)
	}
}

// GetObject reads a whole object; its digest is checked on the way. A name that
// is not there gives forager.ErrNotFound; one that is larger than the store may be,
// or that points elsewhere, gives forager.ErrCorrupt. It is bounded like PutObject.
func (b *Bus) GetObject(ctx context.Context, name string) ([]byte, error) {
	return b.getObject(ctx, name, -1, "")
}

// GetObjectOf is GetObject for an object whose size and digest ("sha256:" and 64
// hexadecimal digits, as in a forager.Manifest) are known: others give
// forager.ErrCorrupt before anything of it is read. The bytes are hashed once.
func (b *Bus) GetObjectOf(ctx context.Context, name string, size int64, digest string) ([]byte, error) {
	sum, found := strings.CutPrefix(digest, "sha256:")
	raw, err := hex.DecodeString(sum)
	if size < 0 || !found || err != nil || len(raw) != sha256.Size {
		return nil, fmt.Errorf("get object %s: it should have %d bytes and the digest %.80q: %w", name, size, digest, forager.ErrCorrupt)
	}
	return b.getObject(ctx, name, size, storedDigest(raw))
}

// storedDigest writes a SHA-256 sum as object stores do.
func storedDigest(sum []byte) string { return "SHA-256=" + base64.URLEncoding.EncodeToString(sum) }

// getObject reads an object of a size and a digest, -1 and "" for any.
func (b *Bus) getObject(ctx context.Context, name string, size int64, digest string) ([]byte, error) {
	store, err := b.store(name)
	if err != nil {
		return nil, err
	}
	asking, cancel := b.bounded(ctx)
	defer cancel()
	info, err := store.GetInfo(asking, name)
	if err != nil {
		return nil, objectError("get", name, err)
	}
	switch most := uint64(max(b.cfg.MaxObjects, rewardModelBytes)); {
	case info.Opts != nil && info.Opts.Link != nil:
		return nil, fmt.Errorf("get object %s: it is a link: %w", name, forager.ErrCorrupt)
	case size >= 0 && info.Size != uint64(size):
		return nil, fmt.Errorf("get object %s: it has %d bytes, want %d: %w", name, info.Size, size, forager.ErrCorrupt)
	case size < 0 && info.Size > most:
		return nil, forager.WithHint(fmt.Errorf("get object %s: it has %d bytes, the store may have %d: %w", name, info.Size, most, forager.ErrCorrupt),
			"give this process the same bus.max_objects as the others")
	}
	ctx, cancel = b.transfer(ctx, int(info.Size))
	defer cancel()
	data, err := read(ctx, store, name, info.Size, digest)
	if err != nil {
		return nil, objectError("get", name, err)
	}
	return data, nil
}

// read reads an object of so many bytes, and not one more, into memory of that
// size: what grows as it is filled is cleared and copied several times, which
// takes longer than the transfer. A digest other than "" must be the one that the
// library compares the bytes with.
func read(ctx context.Context, store jetstream.ObjectStore, name string, size uint64, digest string) ([]byte, error) {
	object, err := store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = object.Close() }() // only read from
	if info, err := object.Info(); err != nil {
		return nil, err
	} else if digest != "" && info.Digest != digest {
		return nil, fmt.Errorf("its digest is %.80q, want %s: %w", info.Digest, digest, forager.ErrCorrupt)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(object, data); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, errors.Join(fmt.Errorf("it is shorter than its %d bytes: %w", size, forager.ErrCorrupt), object.Error())
		}
		return nil, err
	}
	// The digest is compared at the end.
	if n, err := object.Read(make([]byte, 1)); n > 0 || err == nil {
		return nil, fmt.Errorf("it is longer than its %d bytes: %w", size, forager.ErrCorrupt)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

// store is the object store that holds a name.
func (b *Bus) store(name string) (jetstream.ObjectStore, error) {
	store, ok := b.objects[b.names.bucket(name)]
	if !ok {
		return nil, fmt.Errorf("object %s: a bus that is open for reading has no objects", name)
	}
	return store, nil
}

// DeleteObject removes an object. A name that is not there is no error.
func (b *Bus) DeleteObject(ctx context.Context, name string) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	store, err := b.store(name)
	if err != nil {
		return err
	}
	err = objectError("delete", name, store.Delete(ctx, name))
	if errors.Is(err, forager.ErrNotFound) {
		return nil
	}
	return err
}

// ListObjects gives the names of all objects except ObjectRewardModel, sorted.
func (b *Bus) ListObjects(ctx context.Context) ([]string, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	store, err := b.store("")
	if err != nil {
		return nil, err
	}
	infos, err := store.List(ctx)
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

// Names of an object's parts in ADR-20.

func chunks(bucket, nuid string) string { return "$O." + bucket + ".C." + nuid }
func description(bucket, name string) string {
	return "$O." + bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}
