package mqttfront

// subscriptions are those of one session, guarded by its mu.
type subscriptions struct{}
