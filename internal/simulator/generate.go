package simulator

func generate(devices, fleets int, seed uint64, now Time) *world { return &world{} }

type life struct{}

func newLife(seed uint64) *life { return &life{} }

func (l *life) tick(w *world, now Time) {}
