-- Once readings are scored, all are. They are not right after a new file or a correction: `energy-iot score` follows.
{{ config(severity='warn') }}

select
    features.reading_id,
    features.meter_id,
    features.reading_timestamp
from {{ ref('int_consumption_features') }} as features
left join {{ source('ml', 'reading_scores') }} as scores on features.reading_id = scores.reading_id
where
    scores.reading_id is null
    and exists (select 1 from {{ source('ml', 'reading_scores') }})
