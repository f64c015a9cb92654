-- +goose Up
CREATE TABLE pentrough_poison (
    number      bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea    NOT NULL UNIQUE, -- of what makes it the same letter
    keeper      text     NOT NULL,        -- the pipeline that keeps it
    host        text     NOT NULL,
    kept        bigint   NOT NULL,        -- times are Unix milliseconds
    poisoned    bigint   NOT NULL,
    pipeline    text     NOT NULL,
    handler     text     NOT NULL,
    kind        text     NOT NULL,
    cause       text     NOT NULL,
    attempts    integer  NOT NULL,
    message_id  text     NOT NULL,
    source      text     NOT NULL,        -- transport:topic
    exchange    text     NOT NULL,
    routing_key text     NOT NULL,
    details     bytea    NOT NULL,        -- JSON: all of the message but its body, exactly
    body        bytea    NOT NULL,
    state       smallint NOT NULL,        -- 1 new, 2 replaying, 3 replayed, 4 dropped
    changed     bigint   NOT NULL,        -- when the state did
    operator    text     NOT NULL,        -- who changed it
    claim       text     NOT NULL         -- names the last replay
);
CREATE INDEX pentrough_poison_keeper_state ON pentrough_poison (keeper, state, number);
CREATE INDEX pentrough_poison_keeper_kept ON pentrough_poison (keeper, kept);

-- +goose Down
DROP TABLE pentrough_poison;
