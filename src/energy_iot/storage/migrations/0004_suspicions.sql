-- How suspicious each meter is, and how many of its readings of a day are strange, which is part of that.

-- Counts of the scores of the version in force: the ranking of meters looks at weeks, and shall not read all scores.
create table ml.score_days (
    meter_id text not null,
    reading_date date not null,
    reading_count bigint not null,
    anomaly_count bigint not null,
    primary key (meter_id, reading_date)
);

-- Scores that are there already, so that an upgrade scores nothing anew.
insert into ml.score_days (meter_id, reading_date, reading_count, anomaly_count)
select meter_id, cast(reading_timestamp as date), count(*), count(*) filter (where is_anomaly)
from ml.reading_scores
where model_version = (
    select model_version from ml.model_versions where in_force_since is not null
    order by in_force_since desc, model_version desc limit 1
)
group by 1, 2;

-- One row for each meter with readings lately. Reasons are one text, the most telling first.
create table ml.meter_suspicions (
    meter_id text primary key,
    as_of_date date not null,
    suspicion_score double precision not null,
    confidence double precision not null,
    reasons text,
    suspected_since date,
    lost_kwh double precision,
    lost_value double precision,
    currency text,
    suppressed_cause text,
    forest_rank double precision not null,
    strange_reading_share double precision,
    model_version integer not null,
    ranked_at timestamp not null
);
