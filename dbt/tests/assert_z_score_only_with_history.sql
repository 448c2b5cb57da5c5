-- A z-score needs three earlier readings of the hour of week that differ; with them there always is one.
with

compared as (

    select
        features.reading_id,
        features.meter_id,
        features.reading_timestamp,
        features.hour_of_week_z_score,
        history.reading_count >= 3 and history.std_consumption_kwh > 0 as has_history
    from {{ ref('int_consumption_features') }} as features
    left join {{ ref('int_hour_of_week_history') }} as history
        on
            features.meter_id = history.meter_id
            and {{ hour_start('features.reading_timestamp') }} = history.hour_start

)

select *
from compared
where (hour_of_week_z_score is not null) <> coalesce(has_history, false)
