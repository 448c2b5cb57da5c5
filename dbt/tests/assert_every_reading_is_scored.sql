-- Once readings are scored, all are, by the model version in force. They are not right after a new file or a
-- correction: `energy-iot score` follows.
{{ config(severity='warn') }}

with

version_in_force as (

    {{ version_in_force() }}

)

select
    features.reading_id,
    features.meter_id,
    features.reading_timestamp
from {{ ref('int_consumption_features') }} as features
cross join version_in_force
left join {{ source('ml', 'reading_scores') }} as scores
    on
        features.reading_id = scores.reading_id
        and version_in_force.model_version = scores.model_version
where
    scores.reading_id is null
    and exists (select 1 from {{ source('ml', 'reading_scores') }})
